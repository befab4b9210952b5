/**
 * `snapshot convert`: between mapped-ram files, compressed ones, recordings and raw images.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  unlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";
import {
  compressSnapshot,
  copySnapshot,
  createSnapshot,
  extractBlock,
  openSnapshot,
  RamBlock,
  readGuestState,
  Recording,
  writeRecording,
  type GuestState,
  type Snapshot,
} from "../../mod.ts";
import {
  blockArguments,
  fromArguments,
  oneOf,
  pageSize,
  required,
  UsageError,
  wholeNumber,
} from "../arguments.ts";
import { fileNameOf } from "../image_output.ts";
import { ProgressBar, type ProgressCounters } from "../progress.ts";
import { formatBytes } from "../units.ts";
import {
  ByteProgress,
  COMMON_OPTIONS,
  fileArgument,
  openFileArgument,
  parseCommand,
  sharedBlockLines,
  type CommandResult,
  type SnapshotCommand,
} from "./command.ts";

const TARGETS = ["mapped-ram", "compressed", "recording", "raw"] as const;
/** Linux's number; together with O_DIRECTORY. */
const O_TMPFILE = 0o20000000;
const RECORDING_MAGIC = "MFDREC\r\n";

interface ConvertJob {
  readonly to: (typeof TARGETS)[number];
  readonly output: string;
  readonly level: number;
  readonly channels: number;
  readonly directIo: boolean;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** See the module comment. */
export const convertCommand: SnapshotCommand = {
  summary: "to and from compressed files, recordings and raw images",
  usage: `\
Usage: bun examples/snapshot.ts convert FILE[,offset=N] --to FORMAT --output PATH [options]
       bun examples/snapshot.ts convert --block IDSTR=IMAGE... --to mapped-ram|compressed
                                        --output PATH [options]

FILE is a mapped-ram file, plain or compressed, or a recording; which one it is shows in its content.
What is in front of a stream (a start offset, or what virsh save writes there) stays in front of it in
mapped-ram and compressed files, and the output says at which offset QEMU finds the stream then.
Recordings and raw images have only the guest.

  --to mapped-ram          a plain file that QEMU restores
  --to compressed          seekable zstd: small, and any page can still be read at random; zstd -d
                           turns it back into the plain file
  --to recording           what examples/qemu_restore.ts sends to a QEMU
  --to raw                 a directory with a raw image of each block
  --level N                zstd level, 1 to 19 (default 3)
  --channels N             threads that read or write (default 2)
  --direct-io              bypass the page cache
  --page-size BYTES        of raw images: 4K, 8K, 16K or 64K (default 4K)
  --json                   print one JSON object as the last line of stdout`,
  async run(args, signal) {
    const hasImages = args.includes("--block") || args.some((text) => text.startsWith("--block="));
    const { values, files } = parseCommand(args, hasImages ? [] : ["FILE"], {
      ...COMMON_OPTIONS,
      to: { type: "string" },
      output: { type: "string" },
      block: { type: "string", multiple: true },
      level: { type: "string", default: "3" },
      channels: { type: "string", default: "2" },
      "direct-io": { type: "boolean", default: false },
      "page-size": { type: "string" },
    });
    const job: ConvertJob = {
      to: oneOf("--to", required("--to", values.to), TARGETS),
      output: required("--output", values.output),
      level: wholeNumber("--level", values.level, 1, 19),
      channels: wholeNumber("--channels", values.channels, 1, 255),
      directIo: values["direct-io"],
      json: values.json ?? false,
      signal,
    };
    if (hasImages) return fromImages(job, values.block ?? [], values["page-size"]);
    const { path } = fileArgument(files[0]);
    if (isRecording(path)) return fromRecording(job, path);
    using file = await openFileArgument(files[0]);
    return await fromSnapshot(job, file);
  },
};

async function fromSnapshot(job: ConvertJob, file: Snapshot): Promise<CommandResult> {
  const { to, output, level, signal } = job;
  if (to === "recording") return toRecording(job, file);
  using progress = new ByteProgress("converting");
  const options = { signal, onProgress: progress.report };
  let facts: object;
  let line: string;
  if (to === "compressed") {
    const made = await compressSnapshot(file, output, { level, ...options });
    facts = made;
    line = `${formatBytes(made.contentBytes)} in ${formatBytes(made.fileBytes)}, ${made.frames} frames`;
  } else if (to === "mapped-ram") {
    const { presentPages } = await copySnapshot(file, output, options);
    facts = { presentPages };
    line = `${presentPages} pages present`;
  } else {
    mkdirSync(output, { recursive: true });
    const images: { idstr: string; path: string; bytes: number }[] = [];
    for (const { idstr, bytes } of file.blocks) {
      const path = join(output, fileNameOf(idstr));
      await extractBlock(file, idstr, path, options);
      images.push({ idstr, path, bytes });
    }
    facts = { images };
    line = `${images.length} raw images`;
  }
  progress.complete();
  const { start } = file.index;
  const sharedBlocks = file.index.sharedBlocks.map(({ idstr }) => idstr);
  const isBehind = to !== "raw" && start > 0;
  const where = `its stream begins at byte ${start}, as in ${file.path}: for QEMU file:PATH,offset=${start}`;
  const made = result(
    job,
    { ...facts, ...(isBehind ? { offset: start } : {}), sharedBlocks },
    isBehind ? `${line}; ${where}` : line,
  );
  return { ...made, lines: [...made.lines, ...sharedBlockLines(file)] };
}

async function toRecording(job: ConvertJob, file: Snapshot): Promise<CommandResult> {
  const { output, channels, directIo, signal } = job;
  using progress = new LatestProgress("loading");
  // A recording has all memory of its guest, so a file without some of it is refused here.
  const loaded = await file.load({
    channels,
    directIo,
    signal,
    onNotice: notice,
    onProgress: progress.take,
  });
  const { blocks, statistics } = loaded;
  const content = {
    blocks,
    state: await readGuestState(file, { signal }),
    compression: "none",
    statistics,
  };
  await writeRecording(output, content, signal);
  progress.complete();
  return result(job, { blocks: blocks.length }, `${blocks.length} blocks recorded`);
}

async function fromRecording(job: ConvertJob, path: string): Promise<CommandResult> {
  using recording = await Recording.open(path);
  if (job.to === "raw") {
    mkdirSync(job.output, { recursive: true });
    const images: { idstr: string; path: string; bytes: number }[] = [];
    for (const block of recording.blocks) {
      const image = join(job.output, fileNameOf(block.idstr));
      await block.toFile(image, { signal: job.signal });
      images.push({ idstr: block.idstr, path: image, bytes: block.bytes });
    }
    return result(job, { images }, `${images.length} raw images`);
  }
  return await writeSnapshot(job, recording.blocks, recording.state);
}

async function fromImages(
  job: ConvertJob,
  texts: readonly string[],
  pageSizeText: string | undefined,
): Promise<CommandResult> {
  using mapped = new DisposableStack();
  const pageBytes = pageSize(pageSizeText);
  const blocks = blockArguments(texts).map(({ idstr, path }) =>
    mapped.use(RamBlock.map(idstr, path, { pageSize: pageBytes })),
  );
  return await writeSnapshot(job, blocks, undefined);
}

async function writeSnapshot(
  job: ConvertJob,
  blocks: readonly RamBlock[],
  guestState: GuestState | undefined,
): Promise<CommandResult> {
  if (job.to === "compressed") return writeCompressed(job, blocks, guestState);
  if (job.to !== "mapped-ram") {
    throw new UsageError(`Cannot convert to ${job.to} at once: convert to mapped-ram first`);
  }
  const { output, channels, directIo, signal } = job;
  using progress = new LatestProgress("writing");
  const options = { path: output, blocks, guestState, channels, directIo, signal };
  await using writer = await fromArguments(
    createSnapshot({ ...options, onNotice: notice, onProgress: progress.take }),
  );
  await writer.write();
  const { normalPages, zeroPages } = await writer.complete();
  progress.complete();
  const line = `${normalPages} pages present, ${zeroPages} zero`;
  return result(job, { presentPages: normalPages, zeroPages }, line);
}

/** By way of a plain file beside the output, which has no name and so ends with this process. */
async function writeCompressed(
  job: ConvertJob,
  blocks: readonly RamBlock[],
  guestState: GuestState | undefined,
): Promise<CommandResult> {
  const fd = openNameless(dirname(job.output));
  try {
    const plain = `/proc/self/fd/${fd}`;
    await writeSnapshot({ ...job, to: "mapped-ram", output: plain }, blocks, guestState);
    using file = await openSnapshot(plain);
    return await fromSnapshot(job, file);
  } finally {
    closeSync(fd);
  }
}

function openNameless(folder: string): number {
  try {
    return openSync(folder, constants.O_RDWR | constants.O_DIRECTORY | O_TMPFILE, 0o600);
  } catch {
    // Not every file system has files without a name: the name lasts for a moment then.
    const path = join(folder, `.convert-${randomUUID()}`);
    const fd = openSync(path, "wx+", 0o600);
    unlinkSync(path);
    return fd;
  }
}

/** A progress bar over the counters that a callback delivers. */
class LatestProgress implements Disposable {
  /** To be called with the newest counters. */
  readonly take: (counters: ProgressCounters) => void;
  readonly #bar: ProgressBar;
  #latest = NOTHING_YET;

  constructor(label: string) {
    this.take = (counters) => {
      this.#latest = counters;
    };
    this.#bar = new ProgressBar(label, () => this.#latest);
  }

  complete(): void {
    this.#bar.complete();
  }

  [Symbol.dispose](): void {
    this.#bar[Symbol.dispose]();
  }
}

const NOTHING_YET: ProgressCounters = {
  ramBytes: 0,
  pageBytes: 0,
  wireBytes: 0,
  zeroPages: 0,
  channels: [],
};

function result(job: ConvertJob, facts: object, line: string): CommandResult {
  const { to, output, json } = job;
  return { json, facts: { to, output, ...facts }, lines: [`${output}: ${line}`] };
}

function notice(text: string): void {
  process.stderr.write(`${text}\n`);
}

export function isRecording(path: string): boolean {
  // A pipe without a writer would block for ever; regular files ignore the flag.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!fstatSync(fd).isFile()) return false; // whoever opens it next says what it is
    const head = Buffer.alloc(RECORDING_MAGIC.length);
    readSync(fd, head, 0, head.byteLength, 0);
    return head.toString("latin1") === RECORDING_MAGIC;
  } finally {
    closeSync(fd);
  }
}
