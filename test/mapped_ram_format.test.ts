import { expect, test } from "bun:test";
import {
  layOutRegion,
  readRegionHeader,
  writeRegionHeader,
  type RegionContext,
} from "../lib/snapshot/mapped_ram_format.ts";
import { readerOf, written } from "./kit/byte_ends.ts";
import { thrownBy } from "./kit/errors.ts";

const MIB = 1 << 20;
const block = { idstr: "pc.ram", bytes: 128 * MIB };
const context: RegionContext = { headerOffset: 0x77, fileBytes: 1e9, ignoreShared: false };

/** A header with given fields instead of those of `block`. */
function header(
  fields: Partial<Record<"version" | "pageSize" | "bitmapOffset" | "pagesOffset", number>>,
): Uint8Array {
  const bytes = new Uint8Array(28);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, fields.version ?? 1);
  view.setBigUint64(4, BigInt(fields.pageSize ?? 4096));
  view.setBigUint64(12, BigInt(fields.bitmapOffset ?? 0x93));
  view.setBigUint64(20, BigInt(fields.pagesOffset ?? 0x10_0000));
  return bytes;
}

test("layOutRegion() and writeRegionHeader() give the bytes of the format's own example", () => {
  const region = layOutRegion(block, 4096, 0x77);
  expect(region).toEqual({
    ...block,
    pageSize: 4096,
    bitmapOffset: 0x93,
    pagesOffset: 0x10_0000,
  });
  const bytes = written((out) => writeRegionHeader(out, region));
  expect(Buffer.from(bytes).toString("hex")).toBe(
    "00000001000000000000100000000000000000930000000000100000",
  );
});

test("layOutRegion() aligns pages to 1 MiB at any start offset, bitmaps of whole 64-bit words", () => {
  expect(layOutRegion(block, 4096, 5 * MIB).pagesOffset).toBe(6 * MIB);
  // 65 pages are two words: the bitmap ends exactly at the border, one byte more crosses it.
  const odd = { idstr: "odd", bytes: 65 * 4096 };
  expect(layOutRegion(odd, 4096, MIB - 28 - 16).pagesOffset).toBe(MIB);
  expect(layOutRegion(odd, 4096, MIB - 28 - 15).pagesOffset).toBe(2 * MIB);
});

test("readRegionHeader() reads what was written, and version 0 as well", () => {
  const region = layOutRegion(block, 4096, 0x77);
  expect(readRegionHeader(readerOf(header({})), block, context)).toEqual(region);
  expect(readRegionHeader(readerOf(header({ version: 0 })), block, context)).toEqual(region);
});

test("readRegionHeader() accepts a block without pages only from a source that ignores shared ones", () => {
  const absent = header({ bitmapOffset: 0, pagesOffset: 0 });
  const ignoring = { ...context, ignoreShared: true };
  expect(readRegionHeader(readerOf(absent), block, ignoring)).toBeUndefined();
  const error = thrownBy(() => readRegionHeader(readerOf(absent), block, context));
  expect(error.code).toBe("ERR_MULTIFD_STREAM_BITMAP_OFFSET");
});

test("readRegionHeader() rejects every field out of range with a code of its own", () => {
  const cases: [Parameters<typeof header>[0], string][] = [
    [{ version: 2 }, "VERSION"],
    [{ pageSize: 0 }, "PAGE_SIZE"],
    [{ pageSize: 4095 }, "PAGE_SIZE"],
    [{ pageSize: 2 ** 40 }, "PAGE_SIZE"],
    [{ bitmapOffset: 0x92 }, "BITMAP_OFFSET"], // inside the header
    [{ bitmapOffset: 0x10_0000 }, "BITMAP_OFFSET"], // inside the pages
    [{ pagesOffset: 0x93 + 4095 }, "BITMAP_OFFSET"],
    [{ pagesOffset: 0x10_0001 }, "PAGES_OFFSET"],
    [{ pagesOffset: 2 ** 40 }, "TRUNCATED"],
    [{ pagesOffset: 2 ** 53 }, "NUMBER"],
  ];
  for (const [fields, code] of cases) {
    const error = thrownBy(() => readRegionHeader(readerOf(header(fields)), block, context));
    expect([fields, error.code]).toEqual([fields, `ERR_MULTIFD_STREAM_${code}`]);
    expect(error.message).toMatch(/^Cannot read .*[^.]$/);
  }
  const huge = { idstr: "huge", bytes: 2 ** 45 };
  const error = thrownBy(() => readRegionHeader(readerOf(header({})), huge, context));
  expect(error.code).toBe("ERR_MULTIFD_LIMIT_BLOCKS");
});
