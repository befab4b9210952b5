/**
 * Everything that reads what a peer has written, each as a function from bytes to nothing: it must
 * return or throw a `MultifdError`, and must keep its own promises about what it lets through.
 *
 * @module
 */
import {
  createDecoder,
  createEncoder,
  methodFlag,
  resolveCompression,
} from "../../lib/codec/registry.ts";
import { readDeviceSummary } from "../../lib/session/device_summary.ts";
import { encodeDigests, readDigests } from "../../lib/session/digests.ts";
import { viewOfMemory } from "../../ffi/arena.ts";
import { readSnapshotIndex } from "../../lib/snapshot/snapshot_index.ts";
import { decodeFooter, SeekTable } from "../../lib/snapshot/seek_table.ts";
import { DeviceSections } from "../../lib/qemu/device_sections.ts";
import { parseMetadata } from "../../lib/recording/recording_layout.ts";
import type { ByteReader } from "../../lib/wire/byte_reader.ts";
import {
  DevicePacketDecoder,
  DEVICE_PACKET_BYTES,
  encodeDevicePacket,
} from "../../lib/wire/device_packet.ts";
import { decodeHandshake, encodeHandshake, HANDSHAKE_BYTES } from "../../lib/wire/handshake.ts";
import type { AnnouncedBlock, StreamConfiguration } from "../../lib/wire/main_stream.ts";
import { MainStreamReader, type MainStreamHandler } from "../../lib/wire/main_stream_reader.ts";
import { MainStreamWriter } from "../../lib/wire/main_stream_writer.ts";
import { packetPages, RamPacketDecoder, ramPacketBytes } from "../../lib/wire/packet.ts";
import { looksComplete } from "../../lib/wire/opaque_state.ts";
import { readReturnMessage, sendReturnMessage } from "../../lib/wire/return_path.ts";
import { SyncPoints } from "../../lib/wire/sync_points.ts";
import { parseUuid } from "../../lib/wire/uuid.ts";
import { findDescription } from "../../lib/wire/vm_description.ts";
import { COMPRESSION_METHODS, MultifdError, RamBlock } from "../../mod.ts";
import { decodeRuns, encodeRuns } from "../codec/codec_pipe.ts";
import { readerOf, written } from "../kit/byte_ends.ts";
import { fillBlock } from "../kit/page_content.ts";
import { mainStream, packet, syncPacket } from "../kit/raw_peer.ts";
import { runsOf, tableOf } from "../kit/table_blocks.ts";
import { Random } from "./random.ts";
import {
  AFTER_PAGES,
  blockListStream,
  configuration,
  describedDevices,
  mappedRamFront,
  recordingMetadata,
  seekTable,
  syncOrderStream,
} from "./structures.ts";

/** One reader of hostile bytes. */
export interface FuzzTarget {
  readonly name: string;
  /** Valid inputs to start from. */
  readonly seeds: readonly Uint8Array[];
  /** Makes an input of the target's own structure. */
  readonly generate?: (random: Random) => Uint8Array;
  /** @throws {Error} other than `MultifdError` when a promise is broken. */
  readonly run: (bytes: Uint8Array) => void;
}

function promise(kept: boolean, what: string): void {
  if (!kept) throw new Error(`Broken promise: ${what}`);
}

/** Runs `target` on `bytes`; a refusal is as good as success. */
export function runTarget(target: FuzzTarget, bytes: Uint8Array): void {
  try {
    target.run(bytes);
  } catch (error) {
    if (!(error instanceof MultifdError)) throw error;
    promise(/^ERR_MULTIFD_[A-Z_]+$/.test(error.code), `code ${error.code}`);
  }
}

const block = RamBlock.allocate("pc.ram", 64 * 4096);
const small = RamBlock.allocate("/rom@etc/acpi/tables", 4096);
const blocks = tableOf(small, block);

/** A view of exactly `length` bytes, whatever there are. */
function sized(bytes: Uint8Array, length: number): DataView {
  const whole = new Uint8Array(length);
  whole.set(bytes.subarray(0, length));
  return new DataView(whole.buffer);
}

/** As QEMU up to 8.2 sends it: with the payload length of the packet before. */
function staleSyncPacket(): Uint8Array {
  const bytes = syncPacket();
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(20, 8192);
  return bytes;
}

function packetTarget(pageSize: number, flag: number): FuzzTarget {
  const head = packet({ normal: [1, 2], zero: [3], methodFlag: flag }).subarray(0, 1344);
  const expected = { pageSize, methodFlag: flag };
  return {
    name: `packet/${pageSize}/${flag}`,
    seeds: [head, syncPacket(), staleSyncPacket()],
    run: (bytes) => {
      const decoder = new RamPacketDecoder(sized(bytes, ramPacketBytes(pageSize)), expected);
      decoder.decode(blocks);
      const { normalPages, zeroPages, payloadBytes, blockIndex } = decoder;
      promise(normalPages + zeroPages <= packetPages(pageSize), "pages fit the packet");
      promise(payloadBytes <= 1_048_576, "payload has a limit");
      promise(normalPages > 0 || payloadBytes === 0, "no payload without pages");
      if (flag === 0) promise(payloadBytes === normalPages * pageSize, "raw payload is its pages");
      if (normalPages + zeroPages === 0) return;
      const pages = decoder.pages.subarray(0, normalPages + zeroPages);
      const { pages: blockPages } = blocks[blockIndex]!;
      promise(
        pages.every((page) => page < blockPages),
        "pages are inside the block",
      );
    },
  };
}

const handshakeSeed = new Uint8Array(HANDSHAKE_BYTES);
encodeHandshake(new DataView(handshakeSeed.buffer), parseUuid(undefined), 1);

const handshakeTarget: FuzzTarget = {
  name: "handshake",
  seeds: [handshakeSeed],
  run: (bytes) => {
    const id = decodeHandshake(sized(bytes, HANDSHAKE_BYTES), parseUuid(undefined), 4);
    promise(Number.isInteger(id) && id >= 0 && id < 4, "ids are below the number of channels");
  },
};

/** Checks every call of the stream reader. */
class CheckingHandler implements MainStreamHandler {
  readonly #blocks = new Map<string, number>();

  configuration(_configuration: StreamConfiguration): void {}
  openReturnPath(): void {}
  ping(value: number): void {
    promise(value >= 0 && value <= 0xffff_ffff, "PING has 32 bits");
  }
  switchoverStart(): void {}
  ramBlocks(announced: readonly AnnouncedBlock[]): void {
    promise(this.#blocks.size === 0, "there is one block list");
    for (const { idstr, bytes } of announced) {
      promise(!this.#blocks.has(idstr) && idstr !== "", "names are unique");
      promise(bytes > 0 && bytes % 4096 === 0, "lengths are whole pages");
      this.#blocks.set(idstr, bytes);
    }
  }
  zeroPage(idstr: string, offset: number): void {
    const bytes = this.#blocks.get(idstr) ?? 0;
    promise(offset >= 0 && offset < bytes && offset % 4096 === 0, "zero pages are in a block");
  }
  syncMarker(): void {}
  ramSectionEnd(): void {}
  fullSection(_: unknown, reader: ByteReader): boolean {
    reader.u32();
    return true;
  }
}

const legacyStream = written((out) => {
  const writer = new MainStreamWriter(out);
  writer.header({ machine: "m", pageBits: 12, capabilities: ["a"], uuid: parseUuid(undefined) });
  writer.beginRamSection("start");
  writer.blockList(blocks);
  writer.endRamSection();
  writer.beginRamSection("part");
  for (let page = 0; page < 20; page++)
    writer.zeroPage(blocks[page % 5 === 0 ? 0 : 1]!, page % 5 === 0 ? 0 : page);
  writer.endRamSection();
  writer.beginRamSection("end");
  writer.endRamSection();
  writer.fullSection(
    { sectionId: 3, idstr: "x", instanceId: 0, version: 1 },
    Uint8Array.of(1, 2, 3, 4),
  );
  writer.end({ devices: [] });
});

const streamTarget: FuzzTarget = {
  name: "main-stream",
  seeds: [mainStream("whole"), legacyStream],
  run: (bytes) => {
    new MainStreamReader(readerOf(bytes), new CheckingHandler(), 4096).readAll();
  },
};

const returnPathTarget: FuzzTarget = {
  name: "return-path",
  seeds: [
    Uint8Array.fromHex("000200040000000100070000000100040000000000010004"),
    written((out) => {
      const failure = {
        code: "ERR_MULTIFD_PACKET",
        message: "Cannot ä",
        phase: "setup",
        channel: 3,
      };
      sendReturnMessage(out, { name: "failure", content: failure });
    }),
  ],
  run: (bytes) => {
    const reader = readerOf(bytes);
    while (!reader.atEnd()) {
      const message = readReturnMessage(reader);
      if (message.name !== "failure") continue;
      const { code, message: text } = message.content;
      promise(/^ERR_[A-Z0-9_]{1,60}$/.test(code), "a failure has a code");
      promise(text.length <= 400 && !/[\p{Cc}\p{Cf}]/u.test(text), "a failure is short plain text");
    }
  },
};

const digestTarget: FuzzTarget = {
  name: "digests",
  seeds: [encodeDigests([small, block])],
  run: (bytes) => {
    promise(readDigests(readerOf(bytes)).size <= 256, "as many digests as blocks");
  },
};

const deviceSeed = new Uint8Array(DEVICE_PACKET_BYTES);
const idBytes = new TextEncoder().encode("0000:00:02.0/vfio");
encodeDevicePacket(new DataView(deviceSeed.buffer), idBytes, 7, 4096);

const deviceTarget: FuzzTarget = {
  name: "device-packet",
  seeds: [deviceSeed],
  run: (bytes) => {
    const decoder = new DevicePacketDecoder(sized(bytes, DEVICE_PACKET_BYTES), 65_536);
    decoder.decode([{ idBytes, instanceId: 7 }]);
    promise(decoder.device === 0, "only the known device");
    promise(decoder.payloadBytes >= 1 && decoder.payloadBytes <= 65_536, "payload has a limit");
  },
};

const summaryTarget: FuzzTarget = {
  name: "device-summary",
  seeds: [Uint8Array.fromHex("000000010178000000000000000000000001")],
  run: (bytes) => void readDeviceSummary(readerOf(bytes)),
};

/** Payloads of every method this machine has; nothing may be written but the packet's pages. */
function payloadTargets(): FuzzTarget[] {
  const source = RamBlock.allocate("source", 32 * 4096);
  fillBlock(source, 9);
  const target = RamBlock.allocate("target", 32 * 4096);
  const [from] = tableOf(source);
  const [to] = tableOf(target);
  const pages = Array.from({ length: 16 }, (_, index) => index + 8);
  const guards = [target.view(0, 8 * 4096), target.view(24 * 4096, 8 * 4096)];
  for (const guard of guards) guard.fill(0xa5);
  const untouched = guards.map((guard) => guard.slice());
  return COMPRESSION_METHODS.filter((method) => methodFlag(method) !== 0).flatMap((method) => {
    let compression;
    try {
      compression = resolveCompression(method, "encode", 4096);
    } catch {
      return []; // its library is not there
    }
    using encoder = createEncoder(compression, 4096);
    const seed = encodeRuns(encoder, runsOf(from!, pages));
    const decoding = resolveCompression(method, "decode", 4096);
    return {
      name: `payload/${method}`,
      seeds: [seed],
      run: (bytes: Uint8Array) => {
        if (bytes.byteLength === 0) return; // the packet decoder lets no empty payload through
        using decoder = createDecoder(decoding, 4096);
        let failure: unknown;
        try {
          decodeRuns(decoder, runsOf(to!, pages), bytes.subarray(0, 1_048_576));
        } catch (error) {
          failure = error;
        }
        const intact = guards.every((guard, at) => Buffer.compare(guard, untouched[at]!) === 0);
        promise(intact, "nothing is written outside the pages");
        if (failure !== undefined) throw failure as Error;
      },
    };
  });
}

/** A seed of each structure, the first one that the target takes. */
function seedsOf(generate: (random: Random) => Uint8Array, run: FuzzTarget["run"]): Uint8Array[] {
  for (let input = 0; input < 10_000; input++) {
    const seed = generate(new Random(0, input));
    try {
      run(seed.slice());
      return [seed];
    } catch (error) {
      if (!(error instanceof MultifdError)) throw error;
    }
  }
  throw new Error("Cannot make a seed: the target refuses all structures");
}

function structured(
  name: string,
  generate: (random: Random) => Uint8Array,
  run: FuzzTarget["run"],
): FuzzTarget {
  return { name, seeds: seedsOf(generate, run), generate, run };
}

/** Keeps the order in which a receiver would stop and let go on. */
class OrderHandler extends CheckingHandler {
  readonly #syncPoints = new SyncPoints();
  #lists = 0;
  #ended = false;
  points = 0;

  override ramBlocks(announced: readonly AnnouncedBlock[]): void {
    super.ramBlocks(announced);
    this.#lists++;
  }
  override syncMarker(): void {
    promise(!this.#ended, "no sync point behind the END section");
    this.#syncPoints.marker();
    this.points++;
  }
  override ramSectionEnd(kind?: "start" | "part" | "end"): void {
    promise(this.#lists === 1, "no section ends without a block list");
    promise(!this.#ended, "no section follows END");
    if (this.#syncPoints.sectionEnd()) this.points++;
    promise(this.#syncPoints.mode !== undefined, "the first end of a section tells the mode");
    if (kind === "end") this.#ended = true;
  }
  get complete(): boolean {
    return this.#ended && this.#lists === 1;
  }
}

/** Length of a file of holes. */
const FILE_BYTES = 2 * 1_048_576;

const structuredTargets: readonly FuzzTarget[] = [
  structured(
    "configuration",
    (random) =>
      written((out) => {
        configuration(out, random);
        out.u8(0);
      }),
    (bytes) => {
      let capabilities: readonly string[] = [];
      const handler = new CheckingHandler();
      handler.configuration = (configured) => void ({ capabilities } = configured);
      new MainStreamReader(readerOf(bytes), handler, 4096).readHeader();
      promise(capabilities.length <= 64, "capabilities have a limit");
    },
  ),
  structured("block-list", blockListStream, (bytes) => {
    new MainStreamReader(readerOf(bytes), new CheckingHandler(), 4096).readAll();
  }),
  structured("sync-order", syncOrderStream, (bytes) => {
    const handler = new OrderHandler();
    new MainStreamReader(readerOf(bytes), handler, 4096).readAll();
    promise(handler.complete, "a stream that is taken has one block list and an END section");
  }),
  structured("description", describedDevices, (bytes) => {
    const found = findDescription(bytes);
    const sections = new DeviceSections(found?.json);
    sections.read(bytes, 0);
    const count = sections.devices.reduce((sum, { fields }) => sum + fields.length, 0);
    promise(count <= bytes.byteLength, "no more fields than the file is worth");
    promise(looksComplete(bytes) || found === undefined, "what is described is complete");
  }),
  structured("seek-table", seekTable, (bytes) => {
    if (bytes.byteLength < 4 + 9) return;
    const fileBytes = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    const footer = decodeFooter(bytes.subarray(-9), fileBytes);
    const tail = bytes.subarray(4);
    if (footer.tableBytes > tail.byteLength) return; // the part in front of it is not here
    const front = fileBytes - tail.byteLength;
    const table = SeekTable.read(
      (offset, count) => tail.subarray(offset - front, offset - front + count),
      fileBytes,
    );
    promise(table.frameBytesMax <= 16 * 1_048_576, "frames have a limit");
    for (let frame = 0; frame < footer.frames; frame++) {
      const { fileOffset, fileBytes: inFile, offset, bytes: content } = table.frame(frame);
      promise(fileOffset + inFile <= fileBytes, "frames lie in the file");
      promise(offset + content <= table.bytes, "frames lie in the content");
    }
  }),
  structured("recording-metadata", recordingMetadata, (bytes) => {
    const { blocks: recorded, pageSize } = parseMetadata(bytes, 1 << 21);
    promise([4096, 8192, 16_384, 65_536].includes(pageSize), "pages are as a target has them");
    for (const { offset, bytes: length } of recorded) {
      promise(offset + length <= 1 << 21 && length % pageSize === 0, "blocks are in the file");
    }
  }),
  structured("mapped-ram", mappedRamFront, (bytes) => {
    // Behind the front all is zero, as in a file of holes, but for what comes where pages end.
    const read = (address: number, count: number, offset: number): void => {
      const view = viewOfMemory(address, count);
      view.fill(0);
      view.set(
        offset > 1_048_576
          ? AFTER_PAGES.subarray(0, count)
          : bytes.subarray(offset, offset + count),
      );
    };
    const index = readSnapshotIndex({ bytes: FILE_BYTES, read, readSparse: read }, 0);
    for (const { pagesOffset, bytes: length } of index.blocks) {
      promise(pagesOffset + length <= FILE_BYTES, "pages lie in the file");
    }
  }),
];

/** All of them. */
export const fuzzTargets: readonly FuzzTarget[] = [
  handshakeTarget,
  packetTarget(4096, 0),
  packetTarget(4096, 4),
  packetTarget(65_536, 2),
  deviceTarget,
  streamTarget,
  returnPathTarget,
  digestTarget,
  summaryTarget,
  ...structuredTargets,
  ...payloadTargets(),
];
