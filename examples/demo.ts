/**
 * The main job on this machine: an image made of real data goes from one process to another with
 * every compression method, is compared, and a table says how it went. `bun run demo`
 *
 * @module
 */
import { mkdtemp, rm, statfs, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { capabilities, type Statistics } from "../mod.ts";
import { byteCount, channelCount, parseProgramArguments, UsageError } from "./arguments.ts";
import { writeDemoImage } from "./demo_image.ts";
import { runProgram, throwIfCancelled } from "./program.ts";
import { printTable } from "./summary.ts";
import { formatBytes, formatRate, formatSeconds } from "./units.ts";

const USAGE = `\
Usage: bun examples/demo.ts [options]

Makes a memory image of files under /usr, zero pages and random pages, sends it from one process to
another with every compression method this machine can do, compares, and prints a table.

  --size BYTES     length of the image, with K, M, G for powers of 1024 (default 288M)
  --channels N     multifd channels (default 4)
  -h, --help       this text`;

const here = dirname(fileURLToPath(import.meta.url));

/** Room for image and copy, and a little for whoever else writes to the same disk. */
const SPARE_BYTES = 64 * 1_048_576;

/** A transfer that takes longer than this hangs, whatever the machine. */
const TRANSFER_LIMIT_MS = 600_000;

async function demo(signal: AbortSignal): Promise<void> {
  const values = parseProgramArguments({
    size: { type: "string", default: "288M" },
    channels: { type: "string", default: "4" },
    help: { type: "boolean", short: "h" },
  });
  const bytes = byteCount("--size", values.size);
  const channels = channelCount(values.channels);
  if (bytes === 0) throw new UsageError("Cannot use --size 0: must be at least a byte");

  const directory = await mkdtemp(join(tmpdir(), "multifd-demo-"));
  try {
    await checkSpace(directory, 2 * bytes + SPARE_BYTES);
    const image = join(directory, "image.ram");
    console.log(
      `making an image of ${formatBytes(bytes)} of this machine's files, zero and random`,
    );
    const imageBytes = await writeDemoImage(image, bytes, signal);
    const digest = await digestOf(image);

    const rows: string[][] = [];
    for (const { method, available, engines } of capabilities().methods) {
      if (!available) {
        const libraries = engines.map(({ library }) => library).join(" or ");
        rows.push([method, `skipped: needs ${libraries}`]);
        continue;
      }
      const copy = join(directory, "copy.ram");
      const common = ["--channels", String(channels), "--compression", method];
      const result = await transfer(image, copy, common, signal);
      const equal = (await digestOf(copy)) === digest && Bun.file(copy).size === imageBytes;
      if (!equal) throw new Error(`Cannot trust ${method}: the copy differs from the image`);
      await unlink(copy);
      rows.push([method, ...tableCells(result), "equal"]);
    }
    console.log("");
    printTable(
      [
        "method",
        "engine",
        "sent in",
        "memory",
        "confirmed after",
        "wire",
        "ratio",
        "zero pages",
        "copy",
      ],
      rows,
    );
    console.log(
      "\nThe receiver confirms when the copy is on the disk, and both sides share this machine.",
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Last line of a sender with `--json`. */
interface SenderResult extends Statistics {
  readonly sendMs: number;
}

/** Runs receiver and sender as processes; what the sender has to say. */
async function transfer(
  image: string,
  copy: string,
  common: readonly string[],
  signal: AbortSignal,
): Promise<SenderResult> {
  const receiver = program("receiver", ["--listen", "127.0.0.1:0", "--output", copy], common);
  const sides = [receiver];
  const stop = (): void => sides.forEach((side) => side.kill());
  const limit = setTimeout(stop, TRANSFER_LIMIT_MS);
  signal.addEventListener("abort", stop, { once: true });
  try {
    const { value } = await receiver.stdout.getReader().read();
    const first = new TextDecoder().decode(value);
    const { listening } = JSON.parse(first.split("\n")[0] || "{}") as { listening?: string };
    if (listening === undefined) throw new Error("Cannot start the receiver, see above");
    const blocks = ["--connect", listening, "--block", `pc.ram=${image}`, "--verify"];
    const sender = program("sender", blocks, common);
    sides.push(sender);
    const output = await sender.stdout.text();
    const [sent, received] = await Promise.all([sender.exited, receiver.exited]);
    throwIfCancelled(signal);
    if (sent !== 0 || received !== 0) {
      throw new Error(`Cannot transfer: sender ended with ${sent}, receiver with ${received}`);
    }
    return JSON.parse(output.trimEnd().split("\n").at(-1) ?? "") as SenderResult;
  } finally {
    clearTimeout(limit);
    signal.removeEventListener("abort", stop);
    stop();
    await Promise.all(sides.map(async (side) => side.exited));
  }
}

function program(name: string, args: readonly string[], common: readonly string[]) {
  return Bun.spawn([process.execPath, join(here, `${name}.ts`), ...args, ...common, "--json"], {
    stdin: "ignore",
    stdout: "pipe",
    // The sender's progress bar and both sides' last words.
    stderr: "inherit",
  });
}

function tableCells(result: SenderResult): string[] {
  const { sendMs, elapsedMs, pageBytes, wireBytes, zeroPages, channels } = result;
  return [
    channels[0]?.engine ?? "-",
    formatSeconds(sendMs / 1000),
    formatRate(pageBytes / (sendMs / 1000)),
    formatSeconds(elapsedMs / 1000),
    formatBytes(wireBytes),
    (pageBytes / wireBytes).toFixed(2),
    String(zeroPages),
  ];
}

async function digestOf(path: string): Promise<string> {
  const hasher = new Bun.CryptoHasher("blake2b256");
  for await (const chunk of Bun.file(path).stream()) hasher.update(chunk);
  return hasher.digest("hex");
}

async function checkSpace(directory: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize < bytes) {
    throw new Error(
      `Cannot make the image: ${tmpdir()} has ${formatBytes(bavail * bsize)} free, ` +
        `must have ${formatBytes(bytes)}; set TMPDIR to another place or give a smaller --size`,
    );
  }
}

await runProgram(USAGE, demo);
