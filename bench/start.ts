/**
 * What a session costs before its first page: `bun bench/start.ts [channels,…] [method]`.
 *
 * First the parts, one by one. Then sessions: each number of channels has a process that receives and
 * two that send, one session after the other. The first session of a process starts its threads, later
 * ones find them; the second sender prepares them. The receiver has been waiting for a second each
 * time, as a destination has. Memory is what is resident beyond Bun, library and block.
 */
import { median } from "simple-statistics";
import { connect, listen, prepare, RamBlock, type CompressionMethod } from "../mod.ts";
import { resolveCompression } from "../lib/codec/registry.ts";
import type { RehearsalJob } from "../lib/rehearsal/rehearse.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import { JobThread } from "../lib/thread/job_thread.ts";
import type { ThreadJob } from "../lib/thread/thread_messages.ts";
import { programUrls } from "../lib/thread/thread_program.ts";

const SESSIONS = 6;
const CHANNELS = "1,2,4,16,64,255";
const BLOCK_BYTES = 4 << 20;
const PART_RUNS = 7;
/** A receiver's threads rehearse while nobody has connected yet. */
const SETTLE_MS = 1000;

const [list = CHANNELS, method = "none", role] = process.argv.slice(2);
const compression = method as CompressionMethod;

/** What something costs: wall time, processor time of the process, and memory that stays. */
interface Cost {
  readonly wallMs: number;
  readonly processorMs: number;
  readonly mib: number;
}

async function costOf(step: () => Promise<void> | void): Promise<Cost> {
  const resident = process.memoryUsage.rss();
  const processor = process.cpuUsage();
  const start = performance.now();
  await step();
  const wallMs = performance.now() - start;
  const { user, system } = process.cpuUsage(processor);
  const mib = (process.memoryUsage.rss() - resident) / 1_048_576;
  return { wallMs, processorMs: (user + system) / 1000, mib };
}

function print(name: string, costs: readonly Cost[]): void {
  const cells = (["wallMs", "processorMs", "mib"] as const).map((part) =>
    median(costs.map((cost) => cost[part]))
      .toFixed(1)
      .padStart(10),
  );
  console.log(name.padEnd(48) + cells.join(""));
}

function printHead(what: string): void {
  console.log(what.padEnd(48) + ["wall ms", "CPU ms", "MiB"].map((h) => h.padStart(10)).join(""));
}

async function printParts(): Promise<void> {
  const repeat = async (name: string, step: (run: number) => Promise<void>): Promise<void> => {
    const costs: Cost[] = [];
    for (let run = 0; run < PART_RUNS; run++) costs.push(await costOf(() => step(run)));
    print(name, costs);
  };
  printHead("part of a first session");
  print("finding the threads' programs", [await costOf(() => void programUrls())]);
  const empty = URL.createObjectURL(new Blob(["postMessage(1)"], { type: "text/javascript" }));
  const bare: Worker[] = [];
  await repeat("a thread without a program", async (run) => {
    bare[run] = new Worker(empty);
    await new Promise((resolve) => bare[run]!.addEventListener("message", resolve));
  });
  for (const worker of bare) worker.terminate();
  const channels: JobThread[] = [];
  const sessions: JobThread[] = [];
  await repeat("a channel's thread, until its program is there", async (run) => {
    channels[run] = new JobThread("channel_entry", () => {});
    await carryOut(channels[run], { role: "get-ready" });
  });
  await repeat("a session's thread, until its program is there", async (run) => {
    sessions[run] = new JobThread("entry", () => {});
    await carryOut(sessions[run], { role: "get-ready" });
  });
  for (const [channel, direction] of [
    ["send-channel", "encode"],
    ["receive-channel", "decode"],
  ] as const) {
    const resolved = resolveCompression(compression, direction, 4096);
    const plan = { pageSize: 4096, compression: resolved, devices: false };
    const job: ThreadJob & RehearsalJob = { role: "rehearse", channel, plan };
    await repeat(`the whole rehearsal of a ${channel}`, (run) => carryOut(channels[run]!, job));
  }
  for (const thread of [...channels, ...sessions]) thread.terminate();
}

async function carryOut(thread: JobThread, job: ThreadJob): Promise<void> {
  const control = new SessionControl();
  const working = thread.run(job, control);
  working.ref();
  await new Promise<void>((ended) => working.onExit(ended));
  control.throwIfFailed();
}

/** Of a process of its own: receives one session after the other and tells where. */
async function receiveSessions(channels: number): Promise<void> {
  for (;;) {
    await using receiver = await listen({ endpoint: "127.0.0.1:0", channels, compression });
    await Bun.sleep(SETTLE_MS);
    console.log(receiver.endpoint);
    await receiver.complete();
  }
}

/** Of a process of its own: sends a session to each endpoint it is told, and tells what it cost. */
async function sendSessions(channels: number, prepared: boolean): Promise<void> {
  const blocks = [RamBlock.allocate("pc.ram", BLOCK_BYTES)];
  if (prepared) await prepare({ channels, compression, side: "source" });
  const resident = process.memoryUsage.rss();
  for await (const endpoint of console) {
    const connecting = Promise.withResolvers<void>();
    const cost = costOf(() => connecting.promise);
    await using sender = await connect({ endpoint, channels, compression, blocks });
    connecting.resolve();
    const { wallMs, processorMs } = await cost;
    const mib = (process.memoryUsage.rss() - resident) / 1_048_576;
    await sender.send();
    await sender.complete();
    console.log(JSON.stringify({ wallMs, processorMs, mib } satisfies Cost));
  }
}

/** A process of this program in another role; its answers come line by line. */
function startProcess(childRole: string, channels: number) {
  const command = [process.execPath, import.meta.path, String(channels), method, childRole];
  const child = Bun.spawn(command, { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  const next = async (): Promise<string> => {
    while (!rest.includes("\n")) {
      const { value, done } = await lines.read();
      if (done) throw new Error(`Cannot measure ${channels} channels: ${childRole} has ended`);
      rest += value;
    }
    const [line = "", ...others] = rest.split("\n");
    rest = others.join("\n");
    return line;
  };
  return { child, next };
}

async function printSessions(channels: number): Promise<void> {
  const receiver = startProcess("receive", channels);
  for (const kind of ["send", "send-prepared"]) {
    const sender = startProcess(kind, channels);
    const costs: Cost[] = [];
    for (let session = 0; session < SESSIONS; session++) {
      await sender.child.stdin.write(`${await receiver.next()}\n`);
      await sender.child.stdin.flush();
      costs.push(JSON.parse(await sender.next()) as Cost);
    }
    sender.child.kill();
    const threads = kind === "send" ? "" : ", threads prepared";
    print(`${channels} channels, first session${threads}`, costs.slice(0, 1));
    print(`${channels} channels, a further session${threads}`, costs.slice(1));
  }
  receiver.child.kill();
}

if (role === "receive") await receiveSessions(Number(list));
else if (role !== undefined) await sendSessions(Number(list), role === "send-prepared");
else {
  await printParts();
  printHead("connect() of a sender");
  for (const channels of list.split(",")) await printSessions(Number(channels));
  process.exit();
}
