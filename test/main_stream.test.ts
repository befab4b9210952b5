import { expect, test } from "bun:test";
import { RamBlock, StreamError } from "../mod.ts";
import type { ByteReader } from "../lib/wire/byte_reader.ts";
import type { ByteWriter } from "../lib/wire/byte_writer.ts";
import type {
  AnnouncedBlock,
  SectionHeader,
  StreamConfiguration,
} from "../lib/wire/main_stream.ts";
import { MainStreamReader, type MainStreamHandler } from "../lib/wire/main_stream_reader.ts";
import { MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import { parseUuid } from "../lib/wire/uuid.ts";
import { hex, readerOf, written } from "./kit/byte_ends.ts";
import { thrownBy } from "./kit/errors.ts";
import { tableOf } from "./kit/table_blocks.ts";

const blocks = tableOf(
  RamBlock.allocate("pc.ram", 4 * 4096),
  RamBlock.allocate("/rom@etc/acpi/tables", 2 * 4096),
);

/** Writes down every call. */
class Recorder implements MainStreamHandler {
  readonly calls: unknown[][] = [];

  configuration(configuration: StreamConfiguration): void {
    this.calls.push(["configuration", configuration]);
  }
  openReturnPath(): void {
    this.calls.push(["openReturnPath"]);
  }
  ping(value: number): void {
    this.calls.push(["ping", value]);
  }
  switchoverStart(): void {
    this.calls.push(["switchoverStart"]);
  }
  ramBlocks(announced: readonly AnnouncedBlock[]): void {
    this.calls.push(["ramBlocks", announced]);
  }
  zeroPage(idstr: string, offset: number): void {
    this.calls.push(["zeroPage", idstr, offset]);
  }
  syncMarker(): void {
    this.calls.push(["syncMarker"]);
  }
  ramSectionEnd(kind: string): void {
    this.calls.push(["ramSectionEnd", kind]);
  }
  fullSection(header: SectionHeader, reader: ByteReader): boolean {
    if (header.idstr !== "known") return false;
    this.calls.push(["fullSection", header, reader.u32()]);
    return true;
  }
}

function read(bytes: Uint8Array, pageSize = 4096, pieceBytes?: number): unknown[][] {
  const recorder = new Recorder();
  new MainStreamReader(readerOf(bytes, pieceBytes), recorder, pageSize).readAll();
  return recorder.calls;
}

const configuration: StreamConfiguration = { machine: "pc-q35-10.0", capabilities: [] };

/** A stream with everything in it. */
function wholeStream(writer: MainStreamWriter): void {
  writer.header(configuration);
  writer.openReturnPath();
  writer.ping(1);
  writer.beginRamSection("start");
  writer.blockList(blocks);
  writer.syncMarker();
  writer.endRamSection();
  writer.beginRamSection("part");
  writer.zeroPage(blocks[0]!, 3);
  writer.zeroPage(blocks[0]!, 1);
  writer.zeroPage(blocks[1]!, 0);
  writer.endRamSection();
  writer.switchoverStart();
  writer.beginRamSection("end");
  writer.syncMarker();
  writer.endRamSection();
  writer.fullSection({ sectionId: 9, idstr: "known", instanceId: 2, version: 1 }, hex("00000007"));
  writer.end({ page_size: 4096, devices: [] });
}

const WHOLE = written((out) => wholeStream(new MainStreamWriter(out)));

test("MainStreamWriter writes the examples of the format description byte for byte", () => {
  const bytes = written((out) => {
    const writer = new MainStreamWriter(out);
    writer.header({ machine: "pc-q35-10.0", capabilities: ["mapped-ram"] });
    writer.openReturnPath();
    writer.ping(1);
    writer.switchoverStart();
  });
  expect(bytes).toEqual(
    hex(`51 45 56 4d 00 00 00 03
         07 00 00 00 0b 70 63 2d 71 33 35 2d 31 30 2e 30
         05 1a 636f6e66696775726174696f6e2f6361706162696c6974696573
         00 00 00 01 00 00 00 01 0a 6d61707065642d72616d
         08 00 01 00 00
         08 00 02 00 04 00 00 00 01
         08 00 0b 00 00`),
  );
});

test("MainStreamWriter writes zero records as in the format description", () => {
  const [large] = tableOf(RamBlock.allocate("pc.ram", 0x12_5000));
  const bytes = written((out) => {
    const writer = new MainStreamWriter(out);
    writer.beginRamSection("part");
    writer.zeroPage(large!, 0x123);
    writer.zeroPage(large!, 0x124);
    writer.endRamSection();
  });
  expect(bytes).toEqual(
    hex(`02 00 00 00 01
         00 00 00 00 00 12 30 02 06 70 63 2e 72 61 6d 00
         00 00 00 00 00 12 40 22 00
         00 00 00 00 00 00 00 10
         7e 00 00 00 01`),
  );
});

test("MainStreamReader reports what MainStreamWriter wrote, in order, in pieces of any size", () => {
  const expected = [
    [
      "configuration",
      { machine: "pc-q35-10.0", pageBits: undefined, capabilities: [], uuid: undefined },
    ],
    ["openReturnPath"],
    ["ping", 1],
    [
      "ramBlocks",
      [
        { idstr: "pc.ram", bytes: 16_384 },
        { idstr: "/rom@etc/acpi/tables", bytes: 8192 },
      ],
    ],
    ["syncMarker"],
    ["ramSectionEnd", "start"],
    ["zeroPage", "pc.ram", 12_288],
    ["zeroPage", "pc.ram", 4096],
    ["zeroPage", "/rom@etc/acpi/tables", 0],
    ["ramSectionEnd", "part"],
    ["switchoverStart"],
    ["syncMarker"],
    ["ramSectionEnd", "end"],
    ["fullSection", { sectionId: 9, idstr: "known", instanceId: 2, version: 1 }, 7],
  ];
  for (const pieceBytes of [1, 3, 1000]) expect(read(WHOLE, 4096, pieceBytes)).toEqual(expected);
});

test("MainStreamReader reads all subsections of a configuration", () => {
  const uuid = parseUuid("00112233-4455-6677-8899-aabbccddeeff");
  const full = { machine: "m", pageBits: 16, capabilities: ["a", "b"], uuid };
  const bytes = written((out) => {
    const writer = new MainStreamWriter(out);
    writer.header(full);
    writer.beginRamSection("start");
    writer.blockList(tableOf(RamBlock.allocate("x", 65_536, { pageSize: 65_536 })));
    writer.endRamSection();
    writer.beginRamSection("end");
    writer.endRamSection();
    writer.end({});
  });
  expect(read(bytes, 65_536)[0]).toEqual(["configuration", full]);
});

test("MainStreamReader takes a stream without VM description", () => {
  const end = Buffer.from(WHOLE).lastIndexOf(Buffer.from([0x7e, 0, 0, 0, 9, 0])) + 6;
  expect(read(WHOLE.subarray(0, end))).toHaveLength(14);
});

test("MainStreamReader rejects a stream that ends anywhere else", () => {
  const end = Buffer.from(WHOLE).lastIndexOf(Buffer.from([0x7e, 0, 0, 0, 9, 0])) + 6;
  for (let length = 0; length < WHOLE.byteLength; length++) {
    if (length === end) continue;
    expect(thrownBy(() => read(WHOLE.subarray(0, length))).code).toBe("ERR_MULTIFD_CHANNEL_ENDED");
  }
});

test("MainStreamReader.position counts what was consumed, not what was read ahead", () => {
  const reader = readerOf(new Uint8Array([...WHOLE, 1, 2, 3]));
  new MainStreamReader(reader, new Recorder(), 4096).readAll();
  expect(reader.position).toBe(WHOLE.byteLength);
});

/** Header and configuration, then whatever `rest` writes. */
const after = (rest: (out: ByteWriter, writer: MainStreamWriter) => void) => (): Uint8Array =>
  written((out) => {
    const writer = new MainStreamWriter(out);
    writer.header(configuration);
    rest(out, writer);
  });

/** A RAM start section with the block list, then whatever `rest` writes. */
const inStart = (rest: (out: ByteWriter, writer: MainStreamWriter) => void) =>
  after((out, writer) => {
    writer.beginRamSection("start");
    writer.blockList(blocks);
    rest(out, writer);
  });

/** A RAM start section whose block list `list` writes. */
const blockList = (total: number, list: (out: ByteWriter) => void) =>
  after((out, writer) => {
    writer.beginRamSection("start");
    out.u64(total + 4);
    list(out);
  });

const head = (text: string) => () => hex(text);

const broken: readonly [string, string, () => Uint8Array][] = [
  ["a wrong magic", "MAGIC", head("11223344 00000001")],
  ["version 2", "VERSION", head("5145564d 00000002")],
  ["no configuration", "CONFIGURATION", head("5145564d 00000003 01")],
  ["an overlong machine name", "MACHINE", head("5145564d 00000003 07 00000100")],
  [
    "an unknown configuration subsection",
    "CONFIGURATION",
    after((out) => {
      out.u8(5);
      out.countedString("configuration/other");
      out.u32(1);
    }),
  ],
  [
    "a subsection of another version",
    "CONFIGURATION",
    after((out) => {
      out.u8(5);
      out.countedString("configuration/uuid");
      out.u32(2);
    }),
  ],
  [
    "too many capabilities",
    "CAPABILITIES",
    after((out) => {
      out.u8(5);
      out.countedString("configuration/capabilities");
      out.u32(1);
      out.u32(65);
    }),
  ],
  [
    "a configuration subsection that comes again, which could go on for ever",
    "CONFIGURATION",
    after((out) => {
      for (let time = 0; time < 2; time++) {
        out.u8(5);
        out.countedString("configuration/capabilities");
        out.u32(1);
        out.u32(0);
      }
    }),
  ],
  ["a machine name that is not UTF-8", "TEXT", head("5145564d 00000003 07 00000002 c328")],
  ["an unknown section type", "SECTION", after((out) => out.u8(0x42))],
  ["a footer without section", "SECTION", after((out) => out.u8(0x7e))],
  [
    "a START section of an unknown device",
    "SECTION",
    after((out) => {
      out.u8(1);
      out.u32(7);
      out.countedString("vfio");
      out.u32(0);
      out.u32(1);
    }),
  ],
  [
    "a FULL section of an unknown device",
    "SECTION",
    after((_, writer) => {
      writer.fullSection({ sectionId: 3, idstr: "timer", instanceId: 0, version: 1 }, hex("00"));
    }),
  ],
  ["a PART before its START", "SECTION", after((_, writer) => writer.beginRamSection("part"))],
  ["an END before its START", "SECTION", after((_, writer) => writer.beginRamSection("end"))],
  [
    "a PART of another section",
    "SECTION",
    inStart((out, writer) => {
      writer.endRamSection();
      out.u8(2);
      out.u32(99);
    }),
  ],
  [
    "a second START of RAM",
    "SECTION",
    inStart((_, writer) => {
      writer.endRamSection();
      writer.beginRamSection("start");
    }),
  ],
  [
    "RAM of a newer version",
    "SECTION",
    after((out) => {
      out.u8(1);
      out.u32(1);
      out.countedString("ram");
      out.u32(0);
      out.u32(5);
    }),
  ],
  [
    "another instance of RAM",
    "SECTION",
    after((out) => {
      out.u8(1);
      out.u32(1);
      out.countedString("ram");
      out.u32(1);
      out.u32(4);
    }),
  ],
  ["an end without RAM", "SECTION", after((_, writer) => writer.end({}))],
  [
    "an end before the END section of RAM",
    "SECTION",
    inStart((_, writer) => {
      writer.endRamSection();
      writer.end({});
    }),
  ],
  [
    "something else than a footer",
    "FOOTER",
    inStart((out) => {
      out.u64(0x10);
      out.u8(2);
    }),
  ],
  [
    "a footer of another section",
    "FOOTER",
    inStart((out) => {
      out.u64(0x10);
      out.u8(0x7e);
      out.u32(8);
    }),
  ],
  [
    "an unknown command",
    "COMMAND",
    after((out) => {
      out.u8(8);
      out.u16(99);
      out.u16(0);
    }),
  ],
  [
    "a command of the wrong length",
    "COMMAND",
    after((out) => {
      out.u8(8);
      out.u16(1);
      out.u16(4);
    }),
  ],
  [
    "a PING without value",
    "COMMAND",
    after((out) => {
      out.u8(8);
      out.u16(2);
      out.u16(0);
    }),
  ],
  [
    "advice of postcopy",
    "CAPABILITIES",
    after((out) => {
      out.u8(8);
      out.u16(3);
      out.u16(16);
      out.u64(4096);
      out.u64(4096);
    }),
  ],
  [
    "advice of dirty bitmaps",
    "CAPABILITIES",
    after((out) => {
      out.u8(8);
      out.u16(3);
      out.u16(0);
    }),
  ],
  [
    "advice of another length",
    "COMMAND",
    after((out) => {
      out.u8(8);
      out.u16(3);
      out.u16(8);
      out.u64(4096);
    }),
  ],
  ["a page record, which multifd never has", "RECORD", inStart((out) => out.u64(0x08))],
  ["an xbzrle record", "RECORD", inStart((out) => out.u64(0x40))],
  ["a hook record", "RECORD", inStart((out) => out.u64(0x80))],
  ["a record without flags", "RECORD", inStart((out) => out.u64(0x1000))],
  [
    "a block list in a PART",
    "RECORD",
    inStart((_, writer) => {
      writer.endRamSection();
      writer.beginRamSection("part");
      writer.blockList(blocks);
    }),
  ],
  [
    "a second block list",
    "BLOCKS",
    inStart((out) => {
      out.u64(4096 + 4);
      out.countedString("another");
      out.u64(4096);
    }),
  ],
  [
    "an empty block list, also where a real one follows",
    "BLOCKS",
    after((out, writer) => {
      writer.beginRamSection("start");
      out.u64(4);
      writer.blockList(blocks);
    }),
  ],
  [
    "a block id with a NUL",
    "BLOCKS",
    blockList(4096, (out) => {
      out.countedString("a\0b");
      out.u64(4096);
    }),
  ],
  [
    "a block id of 255 bytes that are not UTF-8",
    "TEXT",
    blockList(4096, (out) => {
      out.u8(255);
      out.bytes(new Uint8Array(255).fill(0xff));
      out.u64(4096);
    }),
  ],
  [
    "RAM behind its END section",
    "SECTION",
    inStart((_, writer) => {
      writer.endRamSection();
      for (const kind of ["end", "part"] as const) {
        writer.beginRamSection(kind);
        writer.endRamSection();
      }
    }),
  ],
  [
    "a start section without block list",
    "BLOCKS",
    after((_, writer) => {
      writer.beginRamSection("start");
      writer.endRamSection();
    }),
  ],
  [
    "a zero record that continues nothing",
    "RECORD",
    inStart((out) => {
      out.u64(0x22);
      out.u8(0);
    }),
  ],
  [
    "a zero record of an unknown block",
    "RECORD",
    inStart((out) => {
      out.u64(2);
      out.countedString("pc.rom");
      out.u8(0);
    }),
  ],
  [
    "a zero record behind the block",
    "RECORD",
    inStart((out) => {
      out.u64(4 * 4096 + 2);
      out.countedString("pc.ram");
      out.u8(0);
    }),
  ],
  [
    "a zero record filled with something else",
    "RECORD",
    inStart((out) => {
      out.u64(2);
      out.countedString("pc.ram");
      out.u8(1);
    }),
  ],
  ["a number above 2^53", "NUMBER", inStart((out) => out.bytes(hex("0020000000000010")))],
  [
    "a block without name",
    "BLOCKS",
    blockList(4096, (out) => {
      out.countedString("");
      out.u64(4096);
    }),
  ],
  [
    "two blocks of one name",
    "BLOCKS",
    blockList(8192, (out) => {
      for (let index = 0; index < 2; index++) {
        out.countedString("pc.ram");
        out.u64(4096);
      }
    }),
  ],
  [
    "a block of no length",
    "BLOCKS",
    blockList(4096, (out) => {
      out.countedString("pc.ram");
      out.u64(0);
    }),
  ],
  [
    "a block that is no whole pages",
    "BLOCKS",
    blockList(8192, (out) => {
      out.countedString("pc.ram");
      out.u64(4097);
    }),
  ],
  [
    "blocks longer than their sum",
    "BLOCKS",
    blockList(4096, (out) => {
      out.countedString("pc.ram");
      out.u64(8192);
    }),
  ],
  [
    "more blocks than anybody has",
    "BLOCKS",
    blockList(300 * 4096, (out) => {
      for (let index = 0; index < 300; index++) {
        out.countedString(`b${index}`);
        out.u64(4096);
      }
    }),
  ],
  [
    "something else than a description at the end",
    "DESCRIPTION",
    () => {
      const bytes = WHOLE.slice();
      const end = Buffer.from(WHOLE).lastIndexOf(Buffer.from([0x7e, 0, 0, 0, 9, 0])) + 6;
      bytes[end] = 4;
      return bytes;
    },
  ],
  [
    "an overlong description",
    "DESCRIPTION",
    () => {
      const bytes = WHOLE.slice();
      const end = Buffer.from(WHOLE).lastIndexOf(Buffer.from([0x7e, 0, 0, 0, 9, 0])) + 6;
      new DataView(bytes.buffer).setUint32(end + 1, 16 * 1_048_576 + 1);
      return bytes;
    },
  ],
];

for (const [what, part, bytes] of broken) {
  test(`MainStreamReader rejects ${what}`, () => {
    const error = thrownBy(() => read(bytes()));
    expect(error).toBeInstanceOf(StreamError);
    expect(error.code).toBe(`ERR_MULTIFD_STREAM_${part}`);
  });
}

test("MainStreamReader keeps every byte of a block id, a byte order mark as well", () => {
  const bytes = blockList(8192, (out) => {
    for (const idstr of ["\u{feff}pc.ram", "pc.ram"]) {
      out.countedString(idstr);
      out.u64(4096);
    }
  })();
  const recorder = new Recorder();
  expect(
    thrownBy(() => new MainStreamReader(readerOf(bytes), recorder, 4096).readAll()),
  ).toBeDefined();
  expect(recorder.calls).toContainEqual([
    "ramBlocks",
    [
      { idstr: "\u{feff}pc.ram", bytes: 4096 },
      { idstr: "pc.ram", bytes: 4096 },
    ],
  ]);
  const [marked] = tableOf(RamBlock.allocate("\u{feff}pc.ram", 4096));
  expect(marked?.idstr).toBe("\u{feff}pc.ram");
});

test("MainStreamReader tells flags from addresses with larger pages", () => {
  const block = RamBlock.allocate("big", 4 * 65_536, { pageSize: 65_536 });
  const table = tableOf(block);
  const bytes = written((out) => {
    const writer = new MainStreamWriter(out);
    writer.header({ ...configuration, pageBits: 16 });
    writer.beginRamSection("start");
    writer.blockList(table);
    writer.endRamSection();
    writer.beginRamSection("end");
    writer.zeroPage(table[0]!, 3);
    writer.endRamSection();
    writer.end({});
  });
  expect(read(bytes, 65_536)).toContainEqual(["zeroPage", "big", 3 * 65_536]);
});

test("ByteWriter keeps strings within the 255 bytes that their length byte can say", () => {
  expect(written((out) => out.countedString("x".repeat(255)))).toHaveLength(256);
  expect(() => written((out) => out.countedString("ä".repeat(128)))).toThrow(RangeError);
});

test("ByteWriter and ByteReader pass pieces larger than their buffers", () => {
  const bytes = new Uint8Array(200_000).map((_, at) => at * 7);
  const stream = written((out) => {
    out.u8(1);
    out.bytes(bytes);
    out.u64(2 ** 53 - 1);
  });
  const reader = readerOf(stream, 1000);
  expect(reader.u8()).toBe(1);
  expect(Buffer.compare(reader.bytes(200_000), bytes)).toBe(0);
  expect(reader.u64()).toBe(2 ** 53 - 1);
  expect(reader.atEnd()).toBe(true);
});
