/**
 * RAM and SYNC packets and the header they share with device-state packets (wire format, sections 4
 * and 5). Encoder and decoder work in place in a channel's own header buffer and allocate nothing.
 *
 * @module
 */
import { PacketError } from "../errors.ts";
import { BLOCK_ID_BYTES_MAX, PACKET_PAYLOAD_BYTES, PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { WireBlock } from "./block_id.ts";
import { MULTIFD_MAGIC, MULTIFD_VERSION } from "./handshake.ts";

/*
 * RAM packet, big-endian:
 *
 *    0 u32 magic          4 u32 version         8 u32 flags
 *   12 u32 pages_alloc   16 u32 normal_pages   20 u32 next_packet_size
 *   24 u64 packet_num    32 u32 zero_pages     36 reserved, zero (28 bytes)
 *   64 char[256] ramblock, NUL padded
 *  320 u64[page count] offsets: normal pages, then zero pages, then zeros
 */
const MAGIC_AT = 0;
const VERSION_AT = 4;
const FLAGS_AT = 8;
const PAGES_ALLOC_AT = 12; // u32, capacity of the offset array
const NORMAL_PAGES_AT = 16; // u32, pages whose bytes are in the payload
const NEXT_PACKET_SIZE_AT = 20; // u32, bytes of payload
const PACKET_NUMBER_AT = 24; // u64, counts all packets of a migration
const ZERO_PAGES_AT = 32; // u32, pages that are all zero; reserved before QEMU 9.0
const RAMBLOCK_AT = 64;
const RAMBLOCK_FIELD_BYTES = BLOCK_ID_BYTES_MAX + 1;
const OFFSETS_AT = RAMBLOCK_AT + RAMBLOCK_FIELD_BYTES;
const OFFSET_BYTES = 8;
if (OFFSETS_AT !== 320) throw new RangeError("Fixed part of a RAM packet must be 320 bytes");

/** Bytes of magic, version and flags, which every packet starts with. */
export const COMMON_HEADER_BYTES = 12;

/** Bits of the flags word. */
export const PacketFlag = { SYNC: 0x01, METHOD_MASK: 0x3e, DEVICE_STATE: 0x40 } as const;

/** What the flags say about compression, by the name of the method. */
export const MethodFlag = {
  none: 0x00,
  zlib: 0x02,
  zstd: 0x04,
  qpl: 0x08,
  uadk: 0x10,
  qatzip: 0x20,
} as const;

/** Pages one packet carries at most. */
export function packetPages(pageSize: number): number {
  return PACKET_PAYLOAD_BYTES / pageSize;
}

/** Length of every RAM packet of a migration, without payload. */
export function ramPacketBytes(pageSize: number): number {
  return OFFSETS_AT + OFFSET_BYTES * packetPages(pageSize);
}

/** Writes RAM and SYNC packets into one buffer, over and over. */
export class RamPacketEncoder {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #pageSize: number;
  #offsetsUsed = 0;

  /** @param view Exactly `ramPacketBytes(pageSize)` bytes, owned by this encoder. */
  constructor(view: DataView, pageSize: number) {
    if (view.byteLength !== ramPacketBytes(pageSize)) {
      throw new RangeError(
        `Cannot encode packets in ${view.byteLength} bytes: must be ${ramPacketBytes(pageSize)}`,
      );
    }
    this.#view = view;
    this.#bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    this.#pageSize = pageSize;
    view.setUint32(MAGIC_AT, MULTIFD_MAGIC);
    view.setUint32(VERSION_AT, MULTIFD_VERSION);
  }

  /**
   * Writes a packet with pages. `pages` lists `normal` page numbers, then `zero` page numbers.
   *
   * @param payloadBytes Bytes that follow the packet, 0 when there are no normal pages.
   */
  encodePages(
    block: WireBlock,
    methodFlag: number,
    packetNumber: number,
    pages: Uint32Array,
    normal: number,
    zero: number,
    payloadBytes: number,
  ): void {
    const view = this.#view;
    this.#writeFixedPart(methodFlag, packetPages(this.#pageSize), normal, zero, payloadBytes);
    view.setUint32(PACKET_NUMBER_AT, Math.floor(packetNumber / 0x1_0000_0000));
    view.setUint32(PACKET_NUMBER_AT + 4, packetNumber >>> 0);
    this.#bytes.fill(0, RAMBLOCK_AT + block.idBytes.length, OFFSETS_AT);
    this.#bytes.set(block.idBytes, RAMBLOCK_AT);
    const used = normal + zero;
    this.#writeOffsets(pages, used);
    this.#clearOffsets(used);
  }

  /** Writes a SYNC packet: flags and number only, everything else zero. */
  encodeSync(packetNumber: number): void {
    this.#writeFixedPart(PacketFlag.SYNC, 0, 0, 0, 0);
    this.#view.setUint32(PACKET_NUMBER_AT, Math.floor(packetNumber / 0x1_0000_0000));
    this.#view.setUint32(PACKET_NUMBER_AT + 4, packetNumber >>> 0);
    this.#bytes.fill(0, RAMBLOCK_AT, OFFSETS_AT);
    this.#clearOffsets(0);
  }

  #writeFixedPart(
    flags: number,
    pagesAlloc: number,
    normal: number,
    zero: number,
    payloadBytes: number,
  ): void {
    const view = this.#view;
    view.setUint32(FLAGS_AT, flags);
    view.setUint32(PAGES_ALLOC_AT, pagesAlloc);
    view.setUint32(NORMAL_PAGES_AT, normal);
    view.setUint32(NEXT_PACKET_SIZE_AT, payloadBytes);
    view.setUint32(ZERO_PAGES_AT, zero);
  }

  // A function of its own: the optimising compiler takes a small hot loop sooner than a large one.
  #writeOffsets(pages: Uint32Array, used: number): void {
    const view = this.#view;
    const pageSize = this.#pageSize;
    for (let index = 0; index < used; index++) {
      const offset = pages[index] * pageSize;
      const at = OFFSETS_AT + index * OFFSET_BYTES;
      view.setUint32(at, (offset / 0x1_0000_0000) >>> 0);
      view.setUint32(at + 4, offset >>> 0);
    }
  }

  #clearOffsets(used: number): void {
    // Only what the packet before left behind; the rest of the array is still zero.
    if (this.#offsetsUsed > used) {
      const end = OFFSETS_AT + this.#offsetsUsed * OFFSET_BYTES;
      this.#bytes.fill(0, OFFSETS_AT + used * OFFSET_BYTES, end);
    }
    this.#offsetsUsed = used;
  }
}

/** What a migration expects of its packets. */
export interface PacketExpectation {
  readonly pageSize: number;
  /** Flag value of the configured compression method. */
  readonly methodFlag: number;
}

/**
 * Reads RAM packets. The fields hold the packet last decoded and are valid only after `decode()`
 * returned: everything is checked before anything is kept.
 */
export class RamPacketDecoder {
  /** Whether this packet also is a sync point, to be acted on after its pages. */
  sync = false;
  /** Pages in the payload; the first entries of `pages`. */
  normalPages = 0;
  /** Pages that are all zero; the entries of `pages` that follow. */
  zeroPages = 0;
  /** Bytes of payload behind the packet; 0 without normal pages, whatever the packet says. */
  payloadBytes = 0;
  /** Sequence number, for diagnostics only. */
  packetNumber = 0;
  /** Block of the pages; meaningful only when there are pages. */
  blockIndex = 0;
  /** Page numbers, every one inside the block. */
  readonly pages: Uint32Array;
  readonly #view: DataView;
  readonly #expected: PacketExpectation;

  /** @param view Exactly `ramPacketBytes(pageSize)` bytes into which packets are received. */
  constructor(view: DataView, expected: PacketExpectation) {
    this.#view = view;
    this.#expected = expected;
    this.pages = new Uint32Array(packetPages(expected.pageSize));
  }

  /**
   * Decodes the packet in the buffer.
   *
   * @throws {PacketError} with the field at fault in its code.
   */
  decode(blocks: readonly WireBlock[]): void {
    const view = this.#view;
    const flags = decodeFlags(view);
    if ((flags & PacketFlag.DEVICE_STATE) !== 0) {
      throw packetError("FLAGS", "it is a device-state packet, must be a RAM packet");
    }
    const pagesAlloc = view.getUint32(PAGES_ALLOC_AT);
    if (pagesAlloc > this.pages.length) {
      throw packetError(
        "PAGES_ALLOC",
        `it has room for ${pagesAlloc} pages, at most ${this.pages.length} are allowed`,
      );
    }
    const normal = view.getUint32(NORMAL_PAGES_AT);
    if (normal > pagesAlloc) {
      throw packetError(
        "NORMAL_PAGES",
        `${normal} normal pages announced, at most ${pagesAlloc} fit`,
      );
    }
    const zero = view.getUint32(ZERO_PAGES_AT);
    if (zero > pagesAlloc - normal) {
      throw packetError(
        "ZERO_PAGES",
        `${zero} zero pages announced, at most ${pagesAlloc - normal} fit`,
      );
    }
    // Senders up to QEMU 8.2 leave the size of the packet before in one without normal pages.
    const payloadBytes = normal === 0 ? 0 : view.getUint32(NEXT_PACKET_SIZE_AT);
    if (normal + zero > 0) this.#checkMethod(flags & PacketFlag.METHOD_MASK);
    if (normal > 0) this.#checkPayload(payloadBytes, normal);
    if (normal + zero > 0) this.#decodePages(blocks, normal + zero);
    this.sync = (flags & PacketFlag.SYNC) !== 0;
    this.normalPages = normal;
    this.zeroPages = zero;
    this.payloadBytes = payloadBytes;
    this.packetNumber =
      view.getUint32(PACKET_NUMBER_AT) * 0x1_0000_0000 + view.getUint32(PACKET_NUMBER_AT + 4);
  }

  #checkMethod(methodFlag: number): void {
    const { methodFlag: expected } = this.#expected;
    if (methodFlag !== expected) {
      throw packetError(
        "METHOD",
        `compression is ${methodName(methodFlag)}, must be ${methodName(expected)}`,
      );
    }
  }

  #checkPayload(bytes: number, normal: number): void {
    const { pageSize, methodFlag } = this.#expected;
    if (bytes === 0 || bytes > PAYLOAD_BYTES_MAX) {
      throw packetError(
        "NEXT_PACKET_SIZE",
        `${bytes} bytes of payload, must be 1 to ${PAYLOAD_BYTES_MAX}`,
      );
    }
    if (methodFlag === 0 && bytes !== normal * pageSize) {
      throw packetError(
        "NEXT_PACKET_SIZE",
        `${bytes} bytes of payload for ${normal} pages, must be ${normal * pageSize}`,
      );
    }
  }

  #decodePages(blocks: readonly WireBlock[], used: number): void {
    const view = this.#view;
    const { pageSize } = this.#expected;
    const block = this.#findBlock(blocks);
    for (let index = 0; index < used; index++) {
      const at = OFFSETS_AT + index * OFFSET_BYTES;
      const offset = view.getUint32(at) * 0x1_0000_0000 + view.getUint32(at + 4);
      const page = offset / pageSize;
      if (page >= block.pages) {
        throw packetError(
          "OFFSET",
          `offset ${offset} is outside block ${block.idstr} of ${block.pages * pageSize} bytes`,
        );
      }
      if (page !== Math.floor(page)) {
        throw packetError("OFFSET", `offset ${offset}, must be a multiple of ${pageSize}`);
      }
      this.pages[index] = page;
    }
    this.blockIndex = block.index;
  }

  #findBlock(blocks: readonly WireBlock[]): WireBlock {
    const last = blocks[this.blockIndex];
    if (last !== undefined && this.#isNamed(last)) return last;
    for (const block of blocks) if (this.#isNamed(block)) return block;
    const view = this.#view;
    const field = new Uint8Array(view.buffer, view.byteOffset + RAMBLOCK_AT, RAMBLOCK_FIELD_BYTES);
    const end = field.indexOf(0);
    if (end < 0) {
      throw packetError("RAMBLOCK", "the block name has no terminating NUL");
    }
    const name = new TextDecoder().decode(field.slice(0, end));
    throw packetError("RAMBLOCK", `there is no RAM block ${JSON.stringify(name)}`);
  }

  #isNamed(block: WireBlock): boolean {
    const { idBytes } = block;
    const view = this.#view;
    for (let at = 0; at < idBytes.length; at++) {
      if (view.getUint8(RAMBLOCK_AT + at) !== idBytes[at]) return false;
    }
    return view.getUint8(RAMBLOCK_AT + idBytes.length) === 0;
  }
}

/**
 * Reads the flags of the packet whose first 12 bytes are in `view`.
 *
 * @throws {PacketError} when magic or version are wrong.
 */
export function decodeFlags(view: DataView): number {
  const magic = view.getUint32(MAGIC_AT);
  if (magic !== MULTIFD_MAGIC) {
    throw packetError("MAGIC", `magic is 0x${magic.toString(16)}, must be 0x11223344`);
  }
  const version = view.getUint32(VERSION_AT);
  if (version !== MULTIFD_VERSION) {
    throw packetError("VERSION", `version is ${version}, must be ${MULTIFD_VERSION}`);
  }
  return view.getUint32(FLAGS_AT);
}

function methodName(flag: number): string {
  const found = Object.entries(MethodFlag).find(([, value]) => value === flag);
  return found?.[0] ?? `unknown (flag 0x${flag.toString(16)})`;
}

/** An error about field `field` of a packet. */
export function packetError(field: string, reason: string): PacketError {
  return new PacketError(`ERR_MULTIFD_PACKET_${field}`, `Cannot decode packet: ${reason}`);
}
