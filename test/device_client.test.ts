import { expect, test } from "bun:test";
import { viewOfMemory } from "../ffi/arena.ts";
import type { DeviceClientParts } from "../lib/engine/device_client.ts";
import { DeviceSendState } from "../lib/engine/device_send_state.ts";
import { DeviceTable } from "../lib/engine/device_table.ts";
import { SendState } from "../lib/engine/send_state.ts";
import { Payload } from "../lib/engine/slot.ts";
import { DEVICE_SLOTS } from "../lib/limits.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import { DeviceClient, ThreadPool, type DeviceFormat } from "../mod.ts";
import { thrownBy } from "./kit/errors.ts";

const module = new URL("./device_tasks.ts", import.meta.url).href;

/** The send side of a session whose channels are played by the test. */
class Stage {
  readonly control = new SessionControl();
  readonly state: SendState;
  readonly buffers: DeviceSendState;
  readonly devices = new DeviceTable();
  readonly handle: DeviceClientParts;
  readonly #working: number[];

  constructor(
    channels: number,
    slots = DEVICE_SLOTS,
    format: DeviceFormat = "vfio",
    limitMs = 10_000,
  ) {
    const options = { channels, clients: 1 + slots, pageSize: 4096 };
    this.state = SendState.create(options, this.control);
    this.buffers = DeviceSendState.create(this.state, this.control);
    this.devices.add({ idstr: "dev", instanceId: 0, format });
    this.#working = Array.from({ length: channels }, (_, channel) =>
      this.state.workingSlot(channel),
    );
    this.handle = {
      state: this.state.handle,
      device: this.buffers.handle,
      devices: this.devices.buffer,
      control: this.control.buffer,
      limitMs,
    };
  }

  /** Channel: says that its mailbox is empty. */
  ready(): void {
    this.state.channelsReady.post();
  }

  /** Channel: empties its mailbox; what it has to send, as text. */
  collect(channel: number): string {
    const words = this.state.channel(channel);
    if (!words.jobPending) return "";
    const slotNumber = words.collect(this.#working[channel]!);
    this.#working[channel] = slotNumber;
    const slot = this.state.slots[slotNumber]!;
    expect(slot.type).toBe(Payload.DEVICE_STATE);
    const bytes = viewOfMemory(slot.deviceState, slot.deviceStateBytes);
    const text = new TextDecoder().decode(bytes.slice());
    slot.type = Payload.NONE;
    return text;
  }

  /** Slots nobody holds; a slot that is lost anywhere is missing here. */
  freeSlots(): number {
    const taken: number[] = [];
    for (let slot = this.buffers.take(0); slot >= 0; slot = this.buffers.take(0)) taken.push(slot);
    for (const slot of taken) this.buffers.release(slot);
    return taken.length;
  }
}

function fill(bytes: Uint8Array, text: string): number {
  bytes.set(new TextEncoder().encode(text));
  return text.length;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(1);
}

test("DeviceClient exchanges its full buffer for an empty one, and copies nothing", async () => {
  const stage = new Stage(1, 2);
  const client = new DeviceClient(stage.handle);
  const first = client.prepare("dev");
  client.finish(0); // cancelled
  expect(client.prepare("dev").address).toBe(first.address);
  stage.ready();
  client.finish(fill(first.bytes, "one"));
  // The channel's slot came back for it, so both are to be had again.
  expect(stage.freeSlots()).toBe(2);
  expect(stage.collect(0)).toBe("one");
  const seen = new Set<number>();
  for (let round = 0; round < 20; round++) {
    const { bytes, address } = client.prepare("dev");
    seen.add(address);
    stage.ready();
    client.finish(fill(bytes, `round ${round}`));
    expect(stage.collect(0)).toBe(`round ${round}`);
  }
  // Mailbox, working slot and one of a client take turns; no other buffer is ever touched.
  expect(seen.size).toBeLessThanOrEqual(3);
  expect(stage.freeSlots()).toBe(2);
});

test("DeviceClient.finishWith() hands over the caller's own memory", () => {
  const stage = new Stage(1);
  const client = new DeviceClient(stage.handle);
  const other = new DeviceClient(stage.handle);
  const own = other.prepare("dev");
  client.prepare("dev");
  stage.ready();
  client.finishWith(own.address, fill(own.bytes, "mine"));
  expect(stage.collect(0)).toBe("mine");
  other.finish(0);
});

test("DeviceClient gives a channel to producers in the order in which they finish", async () => {
  const stage = new Stage(2);
  await using pool = new ThreadPool();
  const words = new Int32Array(new SharedArrayBuffer(64));
  const producers = 6;
  for (let producer = 0; producer < producers; producer++) {
    const data = { client: stage.handle, words, producer };
    pool.submit({ module, name: "finishInTurn", data });
    // Word 0 counts who is about to finish; no channel is idle, so all of them stay there. The send
    // mutex's first word counts tickets: from then on this one's place is certain.
    await until(() => Atomics.load(new Int32Array(stage.handle.state.words), 64) === producer + 1);
  }
  expect([0, 1].map((channel) => stage.collect(channel))).toEqual(["", ""]);
  const order: string[] = [];
  for (let round = 0; round < producers; round++) {
    stage.ready();
    let text = "";
    await until(() => (text = stage.collect(round % 2)) !== "");
    order.push(text);
  }
  await pool.settled();
  expect(pool.errors).toEqual([]);
  expect(order).toEqual(Array.from({ length: producers }, (_, index) => `producer ${index}`));
});

test("DeviceClient makes a producer wait for a buffer while all are being filled", async () => {
  const stage = new Stage(1, 2);
  const clients = [0, 1].map(() => new DeviceClient(stage.handle));
  const held = clients.map((client) => client.prepare("dev"));
  expect(held[0]!.address).not.toBe(held[1]!.address);
  await using pool = new ThreadPool();
  const words = new Int32Array(new SharedArrayBuffer(64));
  pool.submit({ module, name: "finishInTurn", data: { client: stage.handle, words, producer: 7 } });
  await until(() => Atomics.load(words, 1) === 1);
  await Bun.sleep(30);
  expect(Atomics.load(words, 2)).toBe(0);
  stage.ready();
  clients[1]!.finish(0);
  await pool.settled();
  expect(pool.errors).toEqual([]);
  expect(stage.collect(0)).toBe("producer 7");
  clients[0]!.finish(0);
});

test("DeviceClient says what a caller did wrong, and goes on afterwards", async () => {
  const stage = new Stage(1, 3, "raw");
  const client = new DeviceClient(stage.handle);
  expect(() => client.prepare("other")).toThrow(RangeError);
  expect(() => client.finish(1)).toThrow("no buffer is prepared");
  client.prepare("dev");
  expect(() => client.prepare("dev")).toThrow("the last buffer is not finished");
  expect(() => client.finish(1_048_577)).toThrow("must be at most 1048576");
  client.prepare("dev");
  expect(() => client.finish(1, true)).toThrow("a raw device has none");
  const long = new Uint8Array(1_048_577);
  expect(() => client.queueDeviceState("dev", 0, long)).toThrow("must be at most 1048576");
  expect(stage.freeSlots()).toBe(3);
});

test("DeviceClient queues nothing behind the config", async () => {
  const stage = new Stage(1, 2);
  const client = new DeviceClient(stage.handle);
  stage.ready();
  client.queueDeviceState("dev", 0, new TextEncoder().encode("config"), true);
  expect(stage.collect(0)).toBe("config");
  for (const config of [false, true]) {
    expect(() => client.queueDeviceState("dev", 0, new Uint8Array(1), config)).toThrow("the last");
  }
  expect(stage.freeSlots()).toBe(2);
});

test("DeviceClient gives up when no channel gets idle, no buffer free, or the session ends", () => {
  const stage = new Stage(1, 1, "vfio", 50);
  const client = new DeviceClient(stage.handle);
  client.prepare("dev");
  const other = new DeviceClient(stage.handle);
  expect(thrownBy(() => other.prepare("dev")).message).toContain("no buffer got free within 50 ms");
  expect(thrownBy(() => client.finish(1)).message).toContain("no channel got idle within 50 ms");
  stage.control.finish();
  expect(thrownBy(() => other.prepare("dev")).code).toBe("ERR_MULTIFD_CHANNEL_STOPPED");
});
