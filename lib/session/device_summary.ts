/**
 * How many buffers of each device a sender has sent, and the stream section that says so to a
 * receiver of this library. With it a missing buffer is an error at once and not a time-out; QEMU
 * does not know the section, so a guest's own stream does not have it.
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import { DEVICES_MAX } from "../limits.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import { ownHeader, type OwnSection } from "../wire/own_sections.ts";
import type { TableDevice } from "../engine/device_table.ts";

/** Buffers by {@linkcode deviceKey}. */
export type DeviceSummary = ReadonlyMap<string, number>;

/** Name and instance as one key. */
export function deviceKey({ idstr, instanceId }: { idstr: string; instanceId: number }): string {
  return `${instanceId} ${idstr}`;
}

/*
 * Section data: u32 number of devices, then for each a counted id string, u32 instance id and u64
 * number of buffers.
 */

/** The section's data, as of now. */
function encodeDeviceSummary(devices: readonly TableDevice[]): Uint8Array {
  const parts = [u32(devices.length)];
  for (const { idBytes, instanceId, buffers } of devices) {
    const tail = new Uint8Array(12);
    const view = new DataView(tail.buffer);
    view.setUint32(0, instanceId);
    view.setBigUint64(4, BigInt(buffers.value));
    parts.push(Uint8Array.of(idBytes.byteLength), idBytes, tail);
  }
  return Buffer.concat(parts);
}

/**
 * Reads the section's data.
 *
 * @throws {StreamError} for too many devices.
 */
export function readDeviceSummary(reader: ByteReader): DeviceSummary {
  const count = reader.u32();
  if (count > DEVICES_MAX) {
    throw new StreamError(
      "ERR_MULTIFD_STREAM_DEVICES",
      `Cannot read device summary: it has ${count} devices, at most ${DEVICES_MAX} are allowed`,
    );
  }
  const summary = new Map<string, number>();
  for (let index = 0; index < count; index++) {
    const idstr = reader.countedString();
    const instanceId = reader.u32();
    summary.set(deviceKey({ idstr, instanceId }), reader.u64());
  }
  return summary;
}

/** The section. */
export const deviceSummarySection: OwnSection<readonly TableDevice[], DeviceSummary> = {
  header: ownHeader("multifd/devices", 1),
  encode: encodeDeviceSummary,
  decode: readDeviceSummary,
};

function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}
