/**
 * What a session costs before its first page: `bun bench/start.ts [channels,…] [method]`. Each number of
 * channels has a process of its own, with sender and receiver in it, and several sessions one after the
 * other: the first one is what most programs see. Times hold for both sides together.
 */
import { connect, listen, RamBlock, type CompressionMethod } from "../mod.ts";

const SESSIONS = 4;
const CHANNELS = "1,2,4,16,64,255";
const BLOCK_BYTES = 4 << 20;

interface SessionStart {
  readonly listenMs: number;
  readonly connectMs: number;
  readonly processorMs: number;
  /** Resident in the whole process, in MiB, when all channels are connected. */
  readonly residentMib: number;
}

async function startSession(
  channels: number,
  compression: CompressionMethod,
): Promise<SessionStart> {
  const block = RamBlock.allocate("pc.ram", BLOCK_BYTES);
  const processor = process.cpuUsage();
  const begin = performance.now();
  await using receiver = await listen({ endpoint: "127.0.0.1:0", channels, compression });
  const listening = performance.now();
  const { endpoint } = receiver;
  await using sender = await connect({ endpoint, channels, compression, blocks: [block] });
  const connected = performance.now();
  const { user, system } = process.cpuUsage(processor);
  const residentMib = process.memoryUsage.rss() / 1_048_576;
  await sender.send();
  await Promise.all([sender.complete(), receiver.complete()]);
  return {
    listenMs: listening - begin,
    connectMs: connected - listening,
    processorMs: (user + system) / 1000,
    residentMib,
  };
}

/** Of a process of its own: prints a line a session. */
async function runSessions(channels: number, compression: CompressionMethod): Promise<void> {
  const atFirst = process.memoryUsage.rss() / 1_048_576;
  for (let session = 1; session <= SESSIONS; session++) {
    const start = await startSession(channels, compression);
    const { listenMs, connectMs, processorMs, residentMib } = start;
    const cells = [listenMs, connectMs, processorMs, residentMib - atFirst];
    const texts = [channels, session, ...cells.map((cell) => cell.toFixed(0))];
    console.log(texts.map((text) => String(text).padStart(12)).join(""));
  }
}

const [list = CHANNELS, method = "none", child] = process.argv.slice(2);
if (child !== undefined) {
  await runSessions(Number(list), method as CompressionMethod);
} else {
  const heads = ["channels", "session", "listen ms", "connect ms", "CPU ms", "MiB more"];
  console.log(heads.map((head) => head.padStart(12)).join(""));
  for (const channels of list.split(",")) {
    const command = [process.execPath, import.meta.path, channels, method, "child"];
    const { exited } = Bun.spawn(command, { stdout: "inherit", stderr: "inherit" });
    if ((await exited) !== 0) process.exit(1);
  }
}
