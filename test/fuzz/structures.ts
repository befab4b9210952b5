/**
 * Structures that a hostile peer or file could be made of, with every part drawn at random: mostly
 * what the format allows, now and then a number, name or order that it does not.
 *
 * @module
 */
import type { ByteWriter } from "../../lib/wire/byte_writer.ts";
import { encodeFullSection } from "../../lib/wire/main_stream_writer.ts";
import { written } from "../kit/byte_ends.ts";
import type { Random } from "./random.ts";

const NAMES = [
  "pc.ram",
  "/rom@etc/acpi/tables",
  "0000:00:02.0/vga.vram",
  "",
  "a\0b",
  "\u{feff}pc.ram",
  "x".repeat(255),
  "ä".repeat(127),
];

const LENGTHS = [
  0,
  1,
  4095,
  4096,
  8192,
  65_536,
  2 ** 30,
  2 ** 40,
  2 ** 42,
  2 ** 50,
  2 ** 53 - 4096,
];

function length(random: Random): number {
  return random.once(4) ? random.pick(LENGTHS) : 4096 * (1 + random.below(64));
}

/** A name and its length byte, now and then not UTF-8 or longer than it says. */
function name(out: ByteWriter, random: Random, names: readonly string[]): void {
  if (random.once(12)) {
    out.u8(random.below(256));
    out.bytes(Uint8Array.from({ length: random.below(8) }, () => random.below(256)));
  } else out.countedString(random.pick(names));
}

const SUBSECTIONS = [
  "configuration/target-page-bits",
  "configuration/capabilities",
  "configuration/uuid",
];

/** Magic, version and a configuration. */
export function configuration(out: ByteWriter, random: Random): void {
  out.u32(0x5145_564d);
  out.u32(3);
  out.u8(7);
  const machine = random.pick(["pc-q35-10.0", "", "m".repeat(255)]);
  out.u32(random.once(12) ? random.word() : machine.length);
  out.bytes(new TextEncoder().encode(machine));
  const start = random.below(3);
  // In turn, so that most are there once; some come again.
  for (let count = random.below(5), at = start; count > 0; count--, at++) {
    const subsection = SUBSECTIONS[at % 3] ?? "";
    out.u8(5);
    name(out, random, [subsection, subsection, subsection, "configuration/other"]);
    out.u32(random.once(12) ? random.word() : 1);
    if (at % 3 === 0) out.u32(random.once(3) ? random.word() : 12);
    else if (at % 3 === 2) out.bytes(new Uint8Array(16));
    else {
      const capabilities = random.below(4);
      out.u32(random.once(12) ? random.word() : capabilities);
      for (let index = 0; index < capabilities; index++) {
        name(out, random, ["mapped-ram", "x-ignore-shared", "multifd"]);
      }
    }
  }
}

/** A record with a block list. */
function blockList(out: ByteWriter, random: Random, flag = 4): void {
  const blocks = Array.from({ length: random.below(4) }, () => length(random));
  const total = random.once(8) ? length(random) : blocks.reduce((sum, bytes) => sum + bytes, 0);
  out.u64(Math.min(2 ** 53 - 4096, Math.floor(total / 4096) * 4096) + flag);
  for (const bytes of blocks) {
    name(out, random, NAMES);
    out.u64(bytes);
  }
}

/** A stream with a block list, whatever comes around it. */
export function blockListStream(random: Random): Uint8Array {
  return written((out) => {
    configuration(out, random);
    beginSection(out, 1);
    for (let lists = 1 + random.below(2); lists > 0; lists--) blockList(out, random);
    out.u64(0x10);
    endSection(out);
    beginSection(out, 3);
    out.u64(0x10);
    endSection(out);
    out.u8(0);
  });
}

function beginSection(out: ByteWriter, type: number): void {
  out.u8(type);
  out.u32(1);
  if (type !== 1) return;
  out.countedString("ram");
  out.u32(0);
  out.u32(4);
}

function endSection(out: ByteWriter): void {
  out.u8(0x7e);
  out.u32(1);
}

/** A stream with markers, zero pages, ends and sections in any order. */
export function syncOrderStream(random: Random): Uint8Array {
  return written((out) => {
    out.bytes(HEADER);
    beginSection(out, 1);
    out.u64(8192 + 4);
    out.countedString("pc.ram");
    out.u64(8192);
    let open = true;
    for (let steps = random.below(24); steps > 0; steps--) {
      switch (random.below(8)) {
        case 0:
        case 1:
          out.u64(0x200);
          break;
        case 2:
          out.u64(4096 * random.below(3) + 2 + (random.once(2) ? 0x20 : 0));
          if (random.once(2)) out.countedString("pc.ram");
          out.u8(0);
          break;
        case 3:
        case 4:
          out.u64(0x10);
          if (!random.once(8)) endSection(out);
          open = false;
          if (random.once(6)) break;
          beginSection(out, random.pick([2, 2, 2, 3, 1]));
          open = true;
          break;
        case 5:
          out.u8(8);
          out.u32(random.pick([0x1_0000, 0xb_0000, 0x2_0004]));
          break;
        default:
          if (!open) beginSection(out, random.pick([2, 3]));
          open = true;
      }
    }
    if (open) {
      out.u64(0x10);
      endSection(out);
    }
    beginSection(out, 3);
    if (random.once(2)) out.u64(0x200);
    out.u64(0x10);
    endSection(out);
    out.u8(0);
  });
}

const HEADER = Uint8Array.fromHex("5145564d000000030700000000");

/** Device sections, an end mark, and a description that may or may not fit them. */
export function describedDevices(random: Random): Uint8Array {
  const parts: Uint8Array[] = [];
  const devices: object[] = [];
  for (let count = random.below(4); count > 0; count--) {
    const data = Uint8Array.from({ length: random.below(40) }, () =>
      random.once(6) ? 0x7e : random.below(256),
    );
    const header = {
      sectionId: random.below(4),
      idstr: random.pick(["timer", "cpu", "0000:00:02.0/vga"]),
      instanceId: random.below(2),
      version: 1,
    };
    parts.push(encodeFullSection(header, data));
    devices.push({
      name: header.idstr,
      instance_id: header.instanceId,
      ...body(random, 0),
    });
  }
  const text = new TextEncoder().encode(JSON.stringify({ page_size: 4096, devices }));
  const head = new Uint8Array(6);
  head[1] = 6;
  new DataView(head.buffer).setUint32(2, random.once(12) ? random.word() : text.byteLength);
  return new Uint8Array(Buffer.concat([...parts, head, text]));
}

const FIELD_TYPES = ["uint8", "uint32", "int64", "bool", "timer", "buffer", "capability", "struct"];
const FIELD_SIZES = [0, 1, 1, 2, 4, 8, 64, 1e6, -1, 2 ** 53, "4"];
const ARRAY_LENGTHS = [0, 1, 2, 3, 100, 999_999, 1e9, 1e300, -1, null];

function body(random: Random, depth: number): object {
  const fields = Array.from({ length: random.below(4) }, () => field(random, depth));
  if (!random.once(6)) return { fields };
  const subsection = { vmsd_name: "a/b", version: 1, ...body(random, depth + 1) };
  return { fields, subsections: [subsection] };
}

function field(random: Random, depth: number): unknown {
  if (random.once(30)) return random.pick([null, 7, "x", []]);
  const array = random.once(4) ? { array_len: random.pick(ARRAY_LENGTHS) } : {};
  const struct = depth < 36 && random.once(3) ? { struct: body(random, depth + 1) } : {};
  return {
    name: "f",
    type: random.pick(FIELD_TYPES),
    size: random.pick(FIELD_SIZES),
    ...array,
    ...struct,
  };
}

/** A seek table, with what lies in front of it left out: four bytes say how long the file is. */
export function seekTable(random: Random): Uint8Array {
  const frames = random.below(6);
  const hasChecksums = random.once(2);
  const entryBytes = hasChecksums ? 12 : 8;
  const table = new Uint8Array(4 + 8 + frames * entryBytes + 9);
  const view = new DataView(table.buffer);
  let fileBytes = table.byteLength - 4;
  for (let frame = 0; frame < frames; frame++) {
    const at = 4 + 8 + frame * entryBytes;
    const inFile = random.once(16) ? random.word() : random.below(100_000);
    view.setUint32(at, inFile, true);
    view.setUint32(at + 4, random.once(16) ? random.word() : random.below(262_145), true);
    fileBytes += inFile;
  }
  view.setUint32(0, random.once(12) ? random.word() : Math.min(fileBytes, 0xffff_ffff));
  view.setUint32(4, 0x184d_2a5e, true);
  view.setUint32(8, table.byteLength - 12, true);
  const footer = table.byteLength - 9;
  view.setUint32(footer, random.once(12) ? random.word() : frames, true);
  view.setUint8(footer + 4, hasChecksums ? 0x80 : random.once(12) ? random.below(256) : 0);
  view.setUint32(footer + 5, 0x8f92_eab1, true);
  return table;
}

/** The metadata of a recording, with parts replaced by others. */
export function recordingMetadata(random: Random): Uint8Array {
  const odd = (sound: unknown): unknown =>
    random.once(16) ? random.pick([null, 0, -1, 1e15, 2 ** 53, "x", "", [], {}, true]) : sound;
  const range = (): unknown =>
    odd({ offset: odd(random.below(1 << 20)), bytes: odd(random.below(4096)), crc32: odd(0) });
  const pageSize = random.pick([4096, 4096, 65_536, 8192, 2048, 12_288]);
  const blocks = Array.from({ length: random.below(4) }, (_, index) =>
    odd({
      idstr: odd(random.once(3) ? random.pick(NAMES) : `block${index}`),
      offset: odd(65_536 * (1 + 4 * index)),
      bytes: odd(pageSize * (1 + random.below(4))),
    }),
  );
  const source = {
    compression: odd("none"),
    channels: odd(1),
    normalPages: 1,
    zeroPages: 1,
    wireBytes: 1,
    elapsedMs: odd(1),
  };
  const metadata = {
    machine: odd("pc"),
    uuid: odd("00000000-0000-0000-0000-000000000000"),
    validateUuid: odd(false),
    pageSize: odd(pageSize),
    pageBits: odd(random.once(2) ? null : Math.log2(pageSize)),
    ramSectionId: odd(2),
    switchoverStart: odd(true),
    blocks: odd(blocks),
    early: range(),
    devices: range(),
    recordedAt: odd("now"),
    source: odd(source),
  };
  return new TextEncoder().encode(JSON.stringify(random.once(30) ? odd(7) : metadata));
}

const MIB = 1_048_576;

/** What follows the pages of a mapped-ram file: the end of the list's section, END, the end mark. */
export const AFTER_PAGES = written((out) => {
  out.u64(0x10);
  endSection(out);
  beginSection(out, 3);
  out.u64(0x10);
  endSection(out);
  out.u8(0);
});

/** The front of a mapped-ram file, with regions where they should be or not; pages are all holes. */
export function mappedRamFront(random: Random): Uint8Array {
  return written((out) => {
    out.bytes(HEADER);
    out.u8(5);
    out.countedString("configuration/capabilities");
    out.u32(1);
    const shared = random.once(4);
    out.u32(shared ? 2 : 1);
    out.countedString("mapped-ram");
    if (shared) out.countedString("x-ignore-shared");
    beginSection(out, 1);
    const bytes = random.once(3) ? length(random) : 4096 * (1 + random.below(64));
    out.u64(Math.floor(Math.min(bytes, 2 ** 52) / 4096) * 4096 + 4);
    name(out, random, NAMES);
    out.u64(bytes);
    if (shared) out.u64(random.once(2) ? 0 : random.word());
    out.u32(random.once(12) ? random.word() : 1);
    out.u64(random.pick([4096, 4096, 4096, 65_536, 0, 1, 2 ** 40]));
    const headerEnd = 1024;
    out.u64(random.pick([headerEnd, headerEnd, 0, 1, MIB, 2 ** 40]));
    out.u64(random.pick([MIB, MIB, MIB, 0, 4096, 2 ** 40]));
  });
}
