import { expect, test } from "bun:test";
import * as fc from "fast-check";
import { viewOfMemory } from "../ffi/arena.ts";
import { StreamError } from "../mod.ts";
import type { ByteSource } from "../lib/wire/byte_reader.ts";
import { ByteReader } from "../lib/wire/byte_reader.ts";
import { encodeFullSection } from "../lib/wire/main_stream_writer.ts";
import {
  findSectionEnd,
  looksComplete,
  readOpaqueSection,
  readToEnd,
} from "../lib/wire/opaque_state.ts";
import { findDescription } from "../lib/wire/vm_description.ts";
import { hex, readerOf } from "./kit/byte_ends.ts";
import { thrownBy } from "./kit/errors.ts";

const RAM_START = hex("01 00000001 03 72616d 00000000 00000004");
const HEADER = { sectionId: 0x26, idstr: "0000:00:01.0/early", instanceId: 0, version: 1 };
const FOOTER = hex("7e 00000026");

/** Section data that is full of what could be taken for the end of it. */
const trickyData = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 12 }),
      fc.constantFrom(FOOTER, hex("7e 00000027"), hex("7e"), hex("00 06"), hex("7e7e 000000")),
    ),
    { maxLength: 12 },
  )
  .map((parts) => Uint8Array.from(Buffer.concat(parts)));

/** Whether data holds a footer that nobody could tell from the real one. */
function isAmbiguous(data: Uint8Array, rest: Uint8Array): boolean {
  const all = Buffer.concat([data, FOOTER, rest]);
  return findSectionEnd(all, 0, HEADER.sectionId) !== data.byteLength;
}

test("readOpaqueSection() finds the end of a section by what follows, whatever is in it", () => {
  fc.assert(
    fc.property(trickyData, (data) => {
      fc.pre(!isAmbiguous(data, RAM_START));
      const reader = readerOf(Uint8Array.from([...data, ...FOOTER, ...RAM_START, 1, 2, 3]));
      expect(readOpaqueSection(reader, HEADER.sectionId)).toEqual(data);
      expect(reader.bytes(FOOTER.byteLength)).toEqual(FOOTER);
      expect(reader.bytes(RAM_START.byteLength + 3)).toEqual(
        Uint8Array.from([...RAM_START, 1, 2, 3]),
      );
    }),
    { numRuns: 500 },
  );
});

test("readOpaqueSection() takes each element that can follow, and RAM only under its number", () => {
  const data = hex("0102 7e000000 26");
  const next = {
    "a full section": encodeFullSection({ ...HEADER, sectionId: 0x27 }, hex("00")),
    "the final phase": hex("08 000b 0000"),
    "a part of RAM": hex("02 00000001"),
    "the end of RAM": hex("03 00000001"),
  };
  for (const bytes of Object.values(next)) {
    const reader = readerOf(Uint8Array.from([...data, ...FOOTER, ...bytes]));
    expect(readOpaqueSection(reader, HEADER.sectionId, 1)).toEqual(data);
  }
  const other = Uint8Array.from([...FOOTER, ...hex("02 00000002"), ...FOOTER, ...RAM_START]);
  const found = readOpaqueSection(readerOf(other), HEADER.sectionId, 1);
  expect(found.byteLength).toBe(FOOTER.byteLength + 5); // the first footer belongs to the data
});

test("readOpaqueSection() ends with the stream and with the limit", () => {
  const error = thrownBy(() => readOpaqueSection(readerOf(hex("0102 7e000000 26")), 0x26));
  expect(error).toBeInstanceOf(StreamError);
  expect(error.code).toBe("ERR_MULTIFD_STREAM_SECTION");
  let left = 17 << 20;
  const endless: ByteSource = {
    receiveSome: (_address, _bytesMin, bytesMax) => {
      left -= bytesMax;
      return left > 0 ? bytesMax : 0;
    },
  };
  const tooLong = thrownBy(() => readOpaqueSection(new ByteReader(endless), 0x26));
  expect(tooLong.code).toBe("ERR_MULTIFD_LIMIT_DEVICE_STATE");
});

function described(json: string): Uint8Array {
  const text = new TextEncoder().encode(json);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, text.byteLength);
  return new Uint8Array(Buffer.concat([FOOTER, Uint8Array.of(0, 6), length, text]));
}

test("findDescription() finds descriptions of every length", () => {
  for (const bytes of [0, 1, 0x7b, 0x100, 0x7b7b, 0x1_0000, 0x12_7b00]) {
    const padding = " ".repeat(Math.max(0, bytes - 40));
    const stream = described(`{"page_size": 4096, "devices": [${padding}]}`);
    const found = findDescription(stream);
    expect(found?.endMarkAt).toBe(FOOTER.byteLength);
    expect(found?.json["page_size"]).toBe(4096);
    expect(looksComplete(stream)).toBe(true);
  }
});

test("findDescription() takes nothing else for one", () => {
  const good = described('{"devices": []}');
  for (const bytes of [
    hex(""),
    hex("7d"),
    good.subarray(0, -1),
    Uint8Array.from([...good, 0]),
    Uint8Array.from([...good, 0x20]),
    described('{"devices": {}}'),
    described("[1]}"),
    described(`{"devices": [${"[".repeat(200)}${"]".repeat(200)}]}`), // deeper than devices nest
    described(`{"devices": [${"0,".repeat(1_100_000)}0]}`), // more values than a machine has
    described(`{"devices": [${" ".repeat(17 * 1_048_576)}]}`), // longer than any description
    described('{"devices": [}'),
    good.with(FOOTER.byteLength, 1),
    good.with(FOOTER.byteLength + 1, 7),
    good.with(FOOTER.byteLength + 5, 1),
  ]) {
    expect(findDescription(bytes)).toBeUndefined();
  }
});

/** A source that keeps the connection open, gives pieces, and counts how often it was waited for. */
class OpenSource implements ByteSource {
  waits: number[] = [];
  readonly #pieces: Uint8Array[];

  constructor(pieces: readonly Uint8Array[]) {
    this.#pieces = [...pieces];
  }

  receiveSome(address: number, bytesMin: number, bytesMax: number): number {
    const piece = this.#pieces.shift();
    if (piece === undefined) throw new Error("Nobody would ever send more");
    if (piece.byteLength > bytesMax || piece.byteLength < bytesMin) throw new Error("Too small");
    copyTo(address, piece);
    return piece.byteLength;
  }

  isReadable(waitMs: number): boolean {
    this.waits.push(waitMs);
    return this.#pieces.length > 0;
  }
}

function copyTo(address: number, bytes: Uint8Array): void {
  viewOfMemory(address, bytes.byteLength).set(bytes);
}

test("readToEnd() knows the end of a stream whose connection stays open", () => {
  const device = encodeFullSection(HEADER, hex("aa bb"));
  const end = described('{"devices": []}').subarray(FOOTER.byteLength);
  for (const cut of [1, 7, device.byteLength, device.byteLength + 1, device.byteLength + 9]) {
    const all = Uint8Array.from([...device, ...end]);
    const source = new OpenSource([all.subarray(0, cut), all.subarray(cut)]);
    expect(readToEnd(new ByteReader(source), true)).toEqual(all);
  }
});

test("readToEnd() goes on when more comes behind what looked like the end", () => {
  // A guest can write such bytes into a device's buffer.
  const fake = Uint8Array.from([...hex("04 00000026"), ...described('{"devices": []}')]);
  const end = described('{"devices": [1]}');
  const source = new OpenSource([fake, end]);
  expect(readToEnd(new ByteReader(source), true)).toEqual(Uint8Array.from([...fake, ...end]));
});

test("readToEnd() waits longer where there is no description, and reads to the end of others", () => {
  const bare = Uint8Array.from([...encodeFullSection(HEADER, hex("aa")), 0]);
  const source = new OpenSource([bare]);
  expect(readToEnd(new ByteReader(source), true)).toEqual(bare);
  expect(source.waits[0]).toBeGreaterThan(1000);
  const whole = Uint8Array.from([...bare, ...hex("7e 00000026 00")]);
  expect(readToEnd(readerOf(whole), false)).toEqual(whole);
});
