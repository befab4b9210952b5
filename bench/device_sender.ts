/**
 * The sending side of the device-state benchmark; started by device_state.ts.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import type { ConnectOptions } from "../mod.ts";
import { BenchSide, sideOptions } from "./bench_process.ts";
import { fillState } from "./device_source.ts";

/** What {@link transferBetween} tells this side. */
export interface DeviceSenderSide {
  readonly ramBytes: number;
  readonly devices: number;
  /** State of each. */
  readonly bytes: number;
  /** Bytes a second each device gives; 0 for memory. */
  readonly rate: number;
  /** All state by one thread, one device after the other, as one device. */
  readonly serial: boolean;
  /** State is queued while RAM is sent, and not in the completion phase. */
  readonly beside: boolean;
  readonly endpoint: string;
  readonly session: Partial<ConnectOptions>;
}

const values = sideOptions() as DeviceSenderSide;
const side = new BenchSide();
const { connect, memoryDevice, RamBlock, ThreadPool } = await import("../mod.ts");
const block = RamBlock.allocate("pc.ram", values.ramBytes, { prefault: true });
for (const view of block.views()) fillState(view, 1000);
const states = Array.from({ length: values.devices }, (_, index) => {
  const buffer = new SharedArrayBuffer(values.bytes);
  RamBlock.fromBuffer("bench", buffer, { hugePages: true }); // as RAM is
  fillState(new Uint8Array(buffer), index);
  return buffer;
});
const { rate, endpoint, session } = values;
const module = new URL("./device_source.ts", import.meta.url).href;
await side.ready();

side.startCounting(block.bytes + states.length * values.bytes);
const connectMs = performance.now();
// Named at the start, so that the channels can rehearse device state before they connect.
const devices = values.serial
  ? [{ idstr: "bench", save: { module, name: "saveOneByOne", data: { buffers: states, rate } } }]
  : states.map((buffer, instanceId) => {
      const memory = memoryDevice({ idstr: "bench", instanceId, buffer });
      const hardware = { module, name: "saveHardware", data: { buffer, rate } };
      const save = rate > 0 ? hardware : memory.save;
      return { ...memory, save: values.beside ? undefined : save };
    });
await using sender = await connect({ blocks: [block], devices, ...session, endpoint });
await using pool = new ThreadPool();
const start = new Int32Array(new SharedArrayBuffer(8));
if (values.beside) {
  for (const [instanceId, buffer] of states.entries()) {
    const data = { client: sender.deviceClient, instanceId, buffer, start: start.buffer };
    pool.submit({ module, name: "queueBesideRam", data });
  }
  // Producers of state that is not the last are there before the migration.
  while (Atomics.load(start, 0) < states.length) await Bun.sleep(1);
}
side.endSetUp();
const startMs = performance.now();
Atomics.store(start, 1, 1);
Atomics.notify(start, 1);
await sender.send();
await pool.settled();
const statistics = await sender.complete();
const endMs = performance.now();
const [failed] = pool.errors;
if (failed !== undefined) throw failed.error;
// RAM takes the time of all its pages, devices that of the switchover.
const timeOfRam = states.length === 0 || values.beside;
const seconds = (timeOfRam ? endMs - startMs : statistics.switchoverMs) / 1000;
const setUpSeconds = (startMs - connectMs) / 1000;
side.report({ ...side.counts(), seconds, setUpSeconds, wireBytes: statistics.wireBytes });
