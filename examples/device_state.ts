/**
 * The state of several devices beside RAM, from file descriptors of one process to those of another:
 * progress of each device, the copies compared, and how long the switchover took.
 *
 *     bun examples/device_state.ts --devices 8 --size 256M --ram 256M --channels 4
 *
 * The state lies in temporary files here. Any descriptor will do: a pipe from another program, or a
 * character device that a driver writes its state to.
 *
 * @module
 */
import { closeSync, openSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { MultiBar, type SingleBar } from "cli-progress";
import { connect, descriptorDevice, listen, RamBlock, type DeviceDefinition } from "../mod.ts";
import { byteCount, parseProgramArguments, required, wholeNumber } from "./arguments.ts";
import { runProgram } from "./program.ts";
import { printTable } from "./summary.ts";
import { formatBytes, formatRate, formatSeconds } from "./units.ts";

const USAGE = `\
Usage: bun examples/device_state.ts [options]

Sends the state of devices and a RAM block from this process to a second one that it starts, compares
the copies and prints a table. State and copies are temporary files; TMPDIR says where.

  --devices N      devices (default 8)
  --size BYTES     state of each, with K, M, G for powers of 1024 (default 256M)
  --ram BYTES      length of the RAM block (default 256M)
  --channels N     multifd channels (default 4)
  -h, --help       this text`;

const DEVICES_MAX = 200;
const REFRESH_MS = 200;
const CONTENT_CHUNK_BYTES = 1_048_576;

/** Same names in both processes. */
function deviceOf(index: number, fd: number): DeviceDefinition {
  return descriptorDevice({
    idstr: "0000:00:05.0/vfio",
    instanceId: index,
    fd,
    waitWhenFull: true, // a disk may be slower than the connection
  });
}

const stateFile = (directory: string, index: number): string => join(directory, `state${index}`);
const copyFile = (directory: string, index: number): string => join(directory, `copy${index}`);

async function main(signal: AbortSignal): Promise<void> {
  const values = parseProgramArguments({
    devices: { type: "string", default: "8" },
    size: { type: "string", default: "256M" },
    ram: { type: "string", default: "256M" },
    channels: { type: "string", default: "4" },
    "receive-into": { type: "string" },
    help: { type: "boolean", short: "h" },
  });
  const devices = wholeNumber("--devices", values.devices, 1, DEVICES_MAX);
  const channels = wholeNumber("--channels", values.channels, 1, 255);
  if (values["receive-into"] !== undefined) {
    const directory = required("--receive-into", values["receive-into"]);
    return receive(directory, devices, channels, signal);
  }
  const bytes = byteCount("--size", values.size);
  const ramBytes = byteCount("--ram", values.ram);
  await using scratch = await temporaryDirectory();
  const { path } = scratch;
  console.log(`making ${devices} times ${formatBytes(bytes)} of state in ${path}`);
  for (let index = 0; index < devices; index++)
    await writeState(stateFile(path, index), bytes, index);
  await using receiver = receiverProcess(path, devices, channels);
  await send(path, await receiver.endpoint, { devices, bytes, ramBytes, channels }, signal);
  const status = await receiver.exited;
  if (status !== 0) throw new Error(`Cannot trust the copies: the receiver ended with ${status}`);
  for (let index = 0; index < devices; index++) {
    const digests = [stateFile(path, index), copyFile(path, index)].map(digestOf);
    const [sent, received] = await Promise.all(digests);
    if (sent !== received) throw new Error(`Cannot trust device ${index}: its copy differs`);
  }
  console.log(`all ${devices} copies are equal`);
}

interface Load {
  readonly devices: number;
  readonly bytes: number;
  readonly ramBytes: number;
  readonly channels: number;
}

/** The sending side, in the process the user started. */
async function send(
  directory: string,
  endpoint: string,
  { devices, bytes, ramBytes, channels }: Load,
  signal: AbortSignal,
): Promise<void> {
  using files = new DisposableStack();
  const block = RamBlock.allocate("pc.ram", ramBytes);
  for (const view of block.views()) crypto.getRandomValues(view.subarray(0, 65_536));
  await using sender = await connect({ endpoint, channels, blocks: [block], signal });
  for (let index = 0; index < devices; index++) {
    const fd = files.adopt(openSync(stateFile(directory, index), "r"), closeSync);
    await sender.registerDevice(deviceOf(index, fd));
  }
  await sender.send();
  using progress = new DeviceProgressBars(bytes, () => sender.deviceProgress());
  const statistics = await sender.complete();
  progress[Symbol.dispose]();
  const seconds = statistics.switchoverMs / 1000;
  printTable(
    ["device", "state", "buffers"],
    sender
      .deviceProgress()
      .map((device) => [
        `${device.idstr} ${device.instanceId}`,
        formatBytes(device.bytes),
        String(device.buffers),
      ]),
  );
  console.log(
    `switchover of ${formatBytes(statistics.deviceBytes)} took ${formatSeconds(seconds)} ` +
      `(${formatRate(statistics.deviceBytes / seconds)}), from SWITCHOVER_START to the confirmation`,
  );
}

/** The receiving side, in a process of its own. */
async function receive(
  directory: string,
  devices: number,
  channels: number,
  signal: AbortSignal,
): Promise<void> {
  using files = new DisposableStack();
  const targets = Array.from({ length: devices }, (_, index) =>
    deviceOf(index, files.adopt(openSync(copyFile(directory, index), "w"), closeSync)),
  );
  const endpoint = "127.0.0.1:0";
  await using receiver = await listen({ endpoint, channels, devices: targets, signal });
  console.log(receiver.endpoint);
  await receiver.complete();
}

function receiverProcess(directory: string, devices: number, channels: number) {
  const self = fileURLToPath(import.meta.url);
  const counts = ["--devices", String(devices), "--channels", String(channels)];
  const command = [process.execPath, self, ...counts, "--receive-into", directory];
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const firstLine = async (): Promise<string> => {
    const { value } = await child.stdout.getReader().read();
    const [line] = new TextDecoder().decode(value).split("\n");
    if (line === undefined || line === "") throw new Error("Cannot start the receiver, see above");
    return line;
  };
  return {
    endpoint: firstLine(),
    exited: child.exited,
    async [Symbol.asyncDispose](): Promise<void> {
      child.kill();
      await child.exited;
    },
  };
}

/** A bar per device on stderr; nothing when stderr is no terminal. */
class DeviceProgressBars implements Disposable {
  readonly #bars: MultiBar | undefined;
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(
    bytes: number,
    progress: () => readonly { readonly instanceId: number; readonly bytes: number }[],
  ) {
    if (!process.stderr.isTTY) return;
    const format = "device {device} [{bar}] {percentage}%";
    this.#bars = new MultiBar({ stream: process.stderr, format, barsize: 32, gracefulExit: false });
    const bars: SingleBar[] = progress().map(({ instanceId }) =>
      this.#bars!.create(bytes, 0, { device: instanceId }),
    );
    this.#timer = setInterval(() => {
      for (const [index, device] of progress().entries()) bars[index]?.update(device.bytes);
    }, REFRESH_MS);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#bars?.stop();
  }
}

async function writeState(path: string, bytes: number, seed: number): Promise<void> {
  await using file = await open(path, "w");
  const chunk = crypto.getRandomValues(new Uint8Array(65_536));
  const content = Buffer.concat(Array.from({ length: CONTENT_CHUNK_BYTES / 65_536 }, () => chunk));
  for (let at = 0; at < bytes; at += CONTENT_CHUNK_BYTES) {
    content.writeDoubleBE(seed + at, 0); // no chunk equals another
    await file.write(content, 0, Math.min(CONTENT_CHUNK_BYTES, bytes - at));
  }
}

async function temporaryDirectory() {
  const path = await mkdtemp(join(tmpdir(), "multifd-devices-"));
  const remove = async (): Promise<void> => rm(path, { recursive: true, force: true });
  return { path, [Symbol.asyncDispose]: remove };
}

async function digestOf(path: string): Promise<string> {
  const hasher = new Bun.CryptoHasher("blake2b256");
  for await (const chunk of Bun.file(path).stream()) hasher.update(chunk);
  return hasher.digest("hex");
}

await runProgram(USAGE, main);
