/**
 * Rehearses a channel's path of device state until the JIT has compiled it, as `warm_up.ts` does for
 * RAM, in sessions that are known to have devices.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import type { SocketPair } from "../net/socket_pair.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { SessionControl } from "../sync/session_control.ts";
import {
  DEVICE_PACKET_BYTES,
  encodeDevicePacket,
  encodeVfioHeader,
  VFIO_HEADER_BYTES,
} from "../wire/device_packet.ts";
import { createDeviceQueue, DeviceQueue } from "../engine/device_queue.ts";
import { encodeIdstr, type DeviceIdentity } from "../engine/device_table.ts";
import type { ReceiveChannel } from "../engine/receive_channel.ts";
import type { SendChannel } from "../engine/send_channel.ts";
import { Payload, type Slot } from "../engine/slot.ts";

/** Buffers to rehearse with; what runs once per buffer is soon compiled as far as it pays. */
const BUFFERS = 300;

/** So many are received in place, the others through the heap. */
const BUFFERS_IN_PLACE = BUFFERS / 2;

/** More than what is read ahead of a payload, so that the rest comes by a read of its own. */
const STATE_BYTES = 4096;

const HEADER_BYTES = DEVICE_PACKET_BYTES + VFIO_HEADER_BYTES;

/** Buffers in a socket pair at once; they fit its default buffer with what the kernel adds. */
const BUFFERS_IN_FLIGHT = 15;

const DEVICE: DeviceIdentity = { idstr: "rehearsal", instanceId: 0, format: "vfio" };

/** Nobody stops a rehearsal; it ends by itself. */
const control = new SessionControl();

/** Rehearses a send channel with device state; `slot` is its working slot. */
export function warmUpDeviceSending(
  channel: SendChannel,
  slot: Slot,
  pair: SocketPair,
  session: Stoppable,
): void {
  const arena = new Arena(HEADER_BYTES + STATE_BYTES);
  const { address } = arena;
  for (let sent = 0; sent < BUFFERS && !session.stopping; sent++) {
    slot.type = Payload.DEVICE_STATE;
    slot.setDeviceState(address, HEADER_BYTES, address + HEADER_BYTES, STATE_BYTES);
    channel.serve(pair.near, slot);
    pair.far.receive(address, HEADER_BYTES + STATE_BYTES);
  }
  arena.u8.fill(0); // its address alone would not have kept it until now
}

/** A queue for {@linkcode warmUpDeviceReceiving}. */
export function rehearsalQueue(): DeviceQueue {
  const limits = { queuedBytesMax: BUFFERS_IN_FLIGHT * STATE_BYTES, queuedBuffersMax: BUFFERS };
  const byteLength = BUFFERS_IN_PLACE * STATE_BYTES;
  const buffer = new SharedArrayBuffer(byteLength);
  const target = { buffer, byteOffset: 0, byteLength, chunkBytes: STATE_BYTES };
  return new DeviceQueue(createDeviceQueue({ ...DEVICE, ...limits }, target), control);
}

/** Rehearses a receive channel that was made with `queue`. */
export function warmUpDeviceReceiving(
  channel: ReceiveChannel,
  queue: DeviceQueue,
  makePair: () => SocketPair,
  session: Stoppable,
): void {
  const arena = new Arena(HEADER_BYTES + STATE_BYTES);
  const packet = new DataView(arena.buffer, 0, DEVICE_PACKET_BYTES);
  const header = new DataView(arena.buffer, DEVICE_PACKET_BYTES, VFIO_HEADER_BYTES);
  encodeDevicePacket(packet, encodeIdstr(DEVICE.idstr), 0, VFIO_HEADER_BYTES + STATE_BYTES);
  for (let first = 0; first < BUFFERS && !session.stopping; first += BUFFERS_IN_FLIGHT) {
    using pair = makePair();
    for (let idx = first; idx < first + BUFFERS_IN_FLIGHT; idx++) {
      encodeVfioHeader(header, idx, false);
      pair.near.send(arena.address, HEADER_BYTES + STATE_BYTES);
    }
    pair.near.endSending();
    channel.run(pair.far);
    for (let idx = first; idx < first + BUFFERS_IN_FLIGHT; idx++) {
      queue.take(0);
      queue.release();
    }
  }
  arena.u8.fill(0); // its address alone would not have kept it until now
}
