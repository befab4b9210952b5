/**
 * How fast each method is with each engine of this machine, on one core and without a network, and
 * what the same library reaches from C on the same pages (`native_codecs.c`, built here). Both take
 * turns, because these machines change speed by the minute; the best pass of each counts, in CPU time.
 * A first pass, not counted, is verified.
 *
 *     bun bench/codecs.ts --image guest.ram --mib 256 --passes 5
 *
 * @module
 */

import { closeSync, openSync, readFileSync, readSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { min } from "simple-statistics";
import {
  capabilities,
  PageStreamDecoder,
  PageStreamEncoder,
  type CompressionMethod,
  type EngineName,
} from "../mod.ts";
import { runCommand } from "../test/kit/subprocess.ts";
import { TemporaryFolder } from "../test/kit/temporary_folder.ts";
import { cacheFolder, imageName } from "./guest_image.ts";
import { machineDescription, waitIdle } from "./idle_machine.ts";
import { draw } from "./report.ts";
import { count, flag, json, runBenchmark, text as word, type Values } from "./settings.ts";

const SETTINGS = {
  image: word(join(cacheFolder(), `${imageName(1024)}.ram`), "raw RAM"),
  mib: count(256, "at most this much of it, non-zero pages only", 1),
  passes: count(5, "over all pages, by each", 1),
  only: word("", "METHOD or METHOD/ENGINE (default: all)", "LIST"),
  level: count(1, "of the method"),
  noNative: flag("do not build the C program and compare"),
  json,
};

const PAGE_BYTES = 4096;
const PACKET_PAGES = 128;
const PACKET_BYTES = PACKET_PAGES * PAGE_BYTES;
const PAYLOAD_BYTES_MAX = 1 << 20;
const GIB = 2 ** 30;
const PIECE_LEAP = 607;
const COMMAND_LIMIT_MS = 180_000;

interface Way {
  readonly method: CompressionMethod;
  readonly engine: EngineName;
  readonly level: number;
  readonly name: string;
}

/** One pass over all pages. */
interface Pass {
  readonly payloadBytes: number;
  readonly encodeSeconds: number;
  readonly decodeSeconds: number;
}

/** The result of a way. */
interface Row {
  readonly way: string;
  readonly ratio: number;
  /** GiB of pages a second. */
  readonly encode: number;
  readonly decode: number;
  /** The same by the library's own C interface; absent without a compiler. */
  readonly nativeRatio?: number;
  readonly nativeEncode?: number;
  readonly nativeDecode?: number;
}

async function main(settings: Values<typeof SETTINGS>): Promise<void> {
  const memory = nonZeroPages(settings.image, settings.mib * 2 ** 20);
  using folder = new TemporaryFolder();
  const native = settings.noNative ? undefined : await buildNative(folder, memory);
  console.log(`${machineDescription()}; ${memory.byteLength / 2 ** 20} MiB of ${settings.image}`);
  if (!(await waitIdle(20_000))) console.log("the machine is not idle: the figures are too low");
  const rows: Row[] = [];
  for (const way of waysHere(settings.only, settings.level)) {
    rows.push(await measure(way, memory, settings.passes, native));
    console.error(`measured ${way.name}`);
  }
  console.log(table(rows));
  if (settings.json) console.log(JSON.stringify({ machine: machineDescription(), rows }));
}

/** Ways of this machine, those of `only` if it is not empty. */
function waysHere(only: string, level: number): Way[] {
  const wanted = only === "" ? [] : only.split(",");
  return capabilities().methods.flatMap(({ method, engines }) =>
    engines
      .filter(({ available }) => available)
      .map(({ engine }) => ({ method, engine, level, name: `${method}/${engine}` }))
      .filter(
        ({ name }) => wanted.length === 0 || wanted.includes(method) || wanted.includes(name),
      ),
  );
}

/** Up to `bytesMax` bytes of the image's non-zero pages, whole packets, from all over the image. */
function nonZeroPages(path: string, bytesMax: number): SharedArrayBuffer {
  const { size } = statSync(path);
  const limit = Math.min(bytesMax, size);
  const pages = new Uint8Array(new SharedArrayBuffer(limit));
  const piece = Buffer.alloc(1 << 20);
  const pieces = Math.ceil(size / piece.length);
  const leap = pieces % PIECE_LEAP === 0 ? 1 : PIECE_LEAP;
  const zero = Buffer.alloc(PAGE_BYTES);
  const file = openSync(path, "r");
  let filled = 0;
  try {
    for (let index = 0; index < pieces && filled < limit; index++) {
      // Images differ from place to place: in leaps, whose length is prime, through all of it.
      const at = ((index * leap) % pieces) * piece.length;
      const got = readSync(file, piece, 0, piece.length, at);
      for (let page = 0; page + PAGE_BYTES <= got && filled < limit; page += PAGE_BYTES) {
        const content = piece.subarray(page, page + PAGE_BYTES);
        if (content.equals(zero)) continue;
        pages.set(content, filled);
        filled += PAGE_BYTES;
      }
    }
  } finally {
    closeSync(file);
  }
  const whole = Math.floor(filled / PACKET_BYTES) * PACKET_BYTES;
  if (whole === 0) throw new RangeError(`Cannot use ${path}: it has no ${PACKET_PAGES} pages`);
  const memory = new SharedArrayBuffer(whole);
  new Uint8Array(memory).set(pages.subarray(0, whole));
  return memory;
}

/** Builds the C program and writes the pages for it; returns how to run one pass. */
async function buildNative(
  folder: TemporaryFolder,
  memory: SharedArrayBuffer,
): Promise<((way: Way) => Promise<Pass>) | undefined> {
  const program = folder.file("native_codecs");
  const source = new URL("native_codecs.c", import.meta.url).pathname;
  if (Bun.which("gcc") === null) {
    console.error("gcc is not installed: nothing to compare with");
    return undefined;
  }
  await spawnOutput(["gcc", "-O3", "-march=native", "-o", program, source, "-ldl"]);
  const image = folder.file("pages.ram");
  writeFileSync(image, new Uint8Array(memory));
  return async (way) => {
    const name = `${way.name}/${nativeLevel(way)}`;
    const text = await spawnOutput([program, image, "1", name]);
    const [, payloadBytes = 0, encodeSeconds = 0, decodeSeconds = 0] = text.split(" ").map(Number);
    return { payloadBytes, encodeSeconds, decodeSeconds };
  };
}

/** The library's own level for one of the method, as documented in `docs/codecs.md`. */
function nativeLevel({ method, engine, level }: Way): number {
  if (engine !== "isal") return level;
  if (method === "zlib" || method === "qatzip") return level === 0 ? 0 : level === 1 ? 2 : 3;
  return level <= 1 ? 0 : 1;
}

async function spawnOutput(command: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runCommand(command, { timeoutMs: COMMAND_LIMIT_MS });
  if (status === 0) return stdout;
  throw new Error(`Cannot go on: ${command[0]} ended with status ${status}: ${stderr.trim()}`);
}

async function measure(
  way: Way,
  memory: SharedArrayBuffer,
  passes: number,
  native: ((way: Way) => Promise<Pass>) | undefined,
): Promise<Row> {
  const packets = memory.byteLength / PACKET_BYTES;
  const payloads = new Uint8Array(new SharedArrayBuffer(packets * PAYLOAD_BYTES_MAX)).fill(1);
  ourPass(way, memory, payloads, true);
  const ours: Pass[] = [];
  const theirs: Pass[] = [];
  for (let pass = 0; pass < passes; pass++) {
    if (native !== undefined) theirs.push(await native(way));
    ours.push(ourPass(way, memory, payloads, false));
  }
  const gib = memory.byteLength / GIB;
  const best = (list: readonly Pass[]) => ({
    ratio: memory.byteLength / (list[0]?.payloadBytes ?? 0),
    encode: gib / min(list.map((pass) => pass.encodeSeconds)),
    decode: gib / min(list.map((pass) => pass.decodeSeconds)),
  });
  const row = { way: way.name, ...best(ours) };
  if (theirs.length === 0) return row;
  const { ratio, encode, decode } = best(theirs);
  return { ...row, nativeRatio: ratio, nativeEncode: encode, nativeDecode: decode };
}

/**
 * Codes up to `packetsMax` packets and back. Three times: on the clock into nothing, off the clock
 * into `payloads`, and on the clock back to pages; `verify` compares them, and makes the times useless.
 */
function ourPass(way: Way, memory: SharedArrayBuffer, payloads: Uint8Array, verify: boolean): Pass {
  const { method, engine, level } = way;
  const compression = { method, engine, level };
  const packets = memory.byteLength / PACKET_BYTES;
  const lengths = new Uint32Array(packets);
  const pages = new Uint32Array(PACKET_PAGES);
  const encodeAll = (keep: boolean): void => {
    using encoder = new PageStreamEncoder({ memory, compression });
    for (let packet = 0; packet < packets; packet++) {
      for (let page = 0; page < PACKET_PAGES; page++) pages[page] = packet * PACKET_PAGES + page;
      const payload = encoder.encode(pages);
      lengths[packet] = payload.length;
      if (keep) payloads.set(payload, packet * PAYLOAD_BYTES_MAX);
    }
  };
  const copy = new SharedArrayBuffer(PACKET_BYTES);
  const target = new Uint8Array(copy);
  const all = Uint32Array.from({ length: PACKET_PAGES }, (_, page) => page);
  const decodeAll = (): void => {
    using decoder = new PageStreamDecoder({ memory: copy, compression });
    for (let packet = 0; packet < packets; packet++) {
      const at = packet * PAYLOAD_BYTES_MAX;
      decoder.decode(payloads.subarray(at, at + (lengths[packet] ?? 0)), all);
      if (!verify) continue;
      const source = new Uint8Array(memory, packet * PACKET_BYTES, PACKET_BYTES);
      if (Buffer.compare(source, target) !== 0) {
        throw new Error(`${way.name}: packet ${packet} came back as something else`);
      }
    }
  };
  const encodeSeconds = threadSeconds(() => encodeAll(false));
  encodeAll(true);
  const decodeSeconds = threadSeconds(decodeAll);
  const payloadBytes = lengths.reduce((sum, length) => sum + length, 0);
  return { payloadBytes, encodeSeconds, decodeSeconds };
}

/** CPU time of this thread alone, so that neither other programs nor the compiler's threads count. */
function threadSeconds(action: () => void): number {
  const now = (): number =>
    Number(readFileSync("/proc/thread-self/schedstat", "latin1").split(" ")[0]);
  const start = now();
  action();
  return (now() - start) / 1e9;
}

function table(rows: readonly Row[]): string {
  const figure = (value: number | undefined, digits: number): string =>
    value === undefined ? "" : value.toFixed(digits);
  const quotient = (ours: number, native: number | undefined): string =>
    native === undefined ? "" : (ours / native).toFixed(2);
  const lines = [
    ["", "ratio", "in GiB/s", "of native", "out GiB/s", "of native", "native in", "out", "ratio"],
    ...rows.map((row) => [
      row.way,
      figure(row.ratio, 3),
      figure(row.encode, 3),
      quotient(row.encode, row.nativeEncode),
      figure(row.decode, 3),
      quotient(row.decode, row.nativeDecode),
      figure(row.nativeEncode, 3),
      figure(row.nativeDecode, 3),
      figure(row.nativeRatio, 3),
    ]),
  ];
  return draw(lines);
}

if (import.meta.main) await runBenchmark("codecs", SETTINGS, main);
