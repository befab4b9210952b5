/**
 * Device state that nobody here can parse. Sections carry no length, so the end of one is known by
 * what follows: its footer and a plausible next element; and the end of all by the VM description
 * that ends the stream (main channel description, section 9).
 *
 * @module
 */
import {
  DEVICE_STATE_BYTES_MAX,
  EARLY_SECTION_BYTES_MAX,
  PAGE_SIZE_DEFAULT,
  STREAM_END_QUIET_MS,
} from "../limits.ts";
import { LimitError, StreamError } from "../errors.ts";
import type { ByteReader } from "./byte_reader.ts";
import { MACHINE_DEFAULT } from "./machine_type.ts";
import { FOOTER_BYTES, Command, Section, type StreamConfiguration } from "./main_stream.ts";
import type { SyncMode } from "./sync_points.ts";
import { findDescription } from "./vm_description.ts";

const VERSION_MAX = 0xffff; // versions of device state are small numbers
const CHUNK_BYTES = 65_536;
/** First piece of a collection: a stream may have a million sections of a few bytes. */
const COLLECTED_BYTES_MIN = 1024;

/** What is not RAM in a migration stream, byte for byte, and what is needed to send it again. */
export interface GuestState {
  /** Machine type, for example `pc-q35-10.0`. */
  readonly machine: string;
  /** log2 of the page size when the stream names it. */
  readonly pageBits?: number | undefined;
  /** The guest's uuid as 16 raw bytes, all zero when it has none. */
  readonly uuid: Uint8Array;
  /** Whether the stream itself names the uuid, for the destination to compare. */
  readonly validateUuid: boolean;
  /** Number of the RAM section. */
  readonly ramSectionId: number;
  /** Complete sections of devices that go before the RAM. */
  readonly early: Uint8Array;
  /** Whether the source announced its final phase. */
  readonly switchoverStart: boolean;
  /** When the source synchronised its channels; absent where none did, as in a file of QEMU. */
  readonly syncMode?: SyncMode | undefined;
  /** Everything after the RAM's last section: device sections, end mark, VM description. */
  readonly devices: Uint8Array;
}

/** What a stream says first about a guest, or about memory without one in pages of that size. */
export function configurationOf(
  state: GuestState | undefined,
  pageSize: number,
  capabilities: readonly string[] = [],
): StreamConfiguration {
  return {
    machine: state?.machine ?? MACHINE_DEFAULT,
    pageBits: state?.pageBits ?? (pageSize === PAGE_SIZE_DEFAULT ? undefined : Math.log2(pageSize)),
    capabilities,
    uuid: state?.validateUuid === true ? state.uuid : undefined,
  };
}

/**
 * Bytes that grow, in one piece whatever pieces they come in: a list of them would cost a hostile
 * peer a byte for each object here.
 */
export class StateCollector {
  #bytes = new Uint8Array(COLLECTED_BYTES_MIN);
  #length = 0;
  readonly #bytesMax: number;
  readonly #what: string;
  readonly #by: string;

  /**
   * @param what Name of the whole, for messages.
   * @param by What allows no more, for messages.
   */
  constructor(bytesMax: number, what: string, by = "") {
    this.#bytesMax = bytesMax;
    this.#what = what;
    this.#by = by;
  }

  /** What there is; changes with the next call. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** @throws {LimitError} above the limit. */
  append(part: Uint8Array): void {
    const length = this.#length + part.byteLength;
    if (length > this.#bytesMax) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_DEVICE_STATE",
        `Cannot keep ${this.#what}: more than ${this.#bytesMax} bytes, the most allowed${this.#by}`,
      );
    }
    if (length > this.#bytes.byteLength) {
      const grown = new Uint8Array(Math.max(length, this.#bytes.byteLength * 2));
      grown.set(this.bytes);
      this.#bytes = grown;
    }
    this.#bytes.set(part, this.#length);
    this.#length = length;
  }
}

/**
 * Reads the data of a section up to its footer, which stays in the reader. At least one more element
 * must follow, as it does in front of the RAM's last section.
 *
 * @param ramSectionId Number of the RAM section, if it has begun.
 */
export function readOpaqueSection(
  reader: ByteReader,
  sectionId: number,
  ramSectionId?: number,
): Uint8Array {
  const collector = new StateCollector(EARLY_SECTION_BYTES_MAX, `section ${sectionId}`);
  for (let bytesMin = 1; ;) {
    const ahead = reader.ahead(bytesMin);
    if (ahead === undefined) {
      throw new StreamError(
        "ERR_MULTIFD_STREAM_SECTION",
        `Cannot read section ${sectionId}: the stream ends before its footer`,
      );
    }
    let candidate = nextFooter(ahead, 0, sectionId);
    while (candidate >= 0) {
      const next = looksLikeElement(ahead, candidate + FOOTER_BYTES, ramSectionId);
      if (next === true) {
        collector.append(ahead.subarray(0, candidate));
        reader.skip(candidate);
        return collector.bytes.slice();
      }
      if (next === "incomplete") break;
      candidate = nextFooter(ahead, candidate + 1, sectionId);
    }
    // What may be a footer stays in the reader until what follows it has arrived.
    const done = candidate < 0 ? Math.max(0, ahead.byteLength - (FOOTER_BYTES - 1)) : candidate;
    bytesMin = ahead.byteLength - done + 1;
    collector.append(ahead.subarray(0, done));
    reader.skip(done);
  }
}

/**
 * Reads the stream to its end, everything that is left of it.
 *
 * @param isOpen Whether the source keeps the connection open after the end, to be told that
 * everything arrived: then the end has to be recognised.
 * @param bytesMax Most bytes to keep.
 * @throws {StreamError} when the connection ends before the stream can have.
 */
export function readToEnd(
  reader: ByteReader,
  isOpen: boolean,
  bytesMax: number = DEVICE_STATE_BYTES_MAX,
): Uint8Array {
  const limit = Math.min(bytesMax, DEVICE_STATE_BYTES_MAX);
  const by = limit < DEVICE_STATE_BYTES_MAX ? " by option heldBytesMax" : "";
  const collector = new StateCollector(limit, "device state", by);
  let lastNul = -1; // kept, so that no piece is searched twice
  for (;;) {
    if (isOpen) {
      const quietMs = quietTime(collector.bytes, lastNul);
      if (quietMs !== undefined && !reader.isReadable(quietMs)) return collector.bytes.slice();
    }
    const chunk = reader.some(CHUNK_BYTES);
    if (chunk === undefined) {
      if (!isOpen && quietTime(collector.bytes, lastNul) !== undefined) {
        return collector.bytes.slice();
      }
      throw endedEarly(isOpen);
    }
    const nul = chunk.lastIndexOf(0);
    if (nul >= 0) lastNul = collector.bytes.byteLength + nul;
    collector.append(chunk);
  }
}

function endedEarly(isOpen: boolean): StreamError {
  return new StreamError(
    "ERR_MULTIFD_STREAM_ENDED",
    isOpen
      ? "Cannot read device state: the source ended the connection before it was told that all is in place"
      : "Cannot read device state: the source ended the connection in the middle of it",
  );
}

/** Whether a stream can end with `bytes`: with a VM description, or with an end mark. */
export function looksComplete(bytes: Uint8Array): boolean {
  return quietTime(bytes, bytes.lastIndexOf(0)) !== undefined;
}

/** How long silence must last for `bytes` to be everything; undefined when they can't be. */
function quietTime(bytes: Uint8Array, lastNul: number): number | undefined {
  if (findDescription(bytes, lastNul) !== undefined) return STREAM_END_QUIET_MS.described;
  const footerAt = bytes.byteLength - 1 - FOOTER_BYTES;
  if (footerAt < 0 || bytes.at(-1) !== Section.EOF || bytes[footerAt] !== Section.FOOTER) {
    return undefined;
  }
  return STREAM_END_QUIET_MS.undescribed;
}

/**
 * Where the data of a section that begins at `at` ends: at its first footer that is followed by
 * something that can follow, the end mark and the end of `bytes` included.
 */
export function findSectionEnd(
  bytes: Uint8Array,
  at: number,
  sectionId: number,
): number | undefined {
  for (let end = at; (end = nextFooter(bytes, end, sectionId)) >= 0; end++) {
    const next = end + FOOTER_BYTES;
    if (next === bytes.byteLength) return end;
    // Behind the end mark comes the description or nothing.
    const isLast =
      bytes[next] === Section.EOF &&
      (next + 1 === bytes.byteLength || bytes[next + 1] === Section.VM_DESCRIPTION);
    if (isLast || looksLikeElement(bytes, next, undefined) === true) return end;
  }
  return undefined;
}

function isFooter(bytes: Uint8Array, at: number, sectionId: number): boolean {
  // Data may consist of bytes that look like footers: a view for each would cost more than all else.
  return (
    at >= 0 &&
    bytes[at] === Section.FOOTER &&
    bytes[at + 1] === sectionId >>> 24 &&
    bytes[at + 2] === ((sectionId >>> 16) & 0xff) &&
    bytes[at + 3] === ((sectionId >>> 8) & 0xff) &&
    bytes[at + 4] === (sectionId & 0xff)
  );
}

function nextFooter(bytes: Uint8Array, from: number, sectionId: number): number {
  let at = bytes.indexOf(Section.FOOTER, from);
  while (at >= 0 && !isFooter(bytes, at, sectionId)) at = bytes.indexOf(Section.FOOTER, at + 1);
  return at;
}

/** Whether the bytes at `at` can begin a section or command in front of the RAM's last section. */
function looksLikeElement(
  bytes: Uint8Array,
  at: number,
  ramSectionId: number | undefined,
): boolean | "incomplete" {
  const left = bytes.byteLength - at;
  if (left < 1) return "incomplete";
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const type = bytes[at];
  if (type === Section.COMMAND) {
    if (left < 5) return "incomplete";
    return view.getUint16(at + 1) === Command.SWITCHOVER_START && view.getUint16(at + 3) === 0;
  }
  if (type === Section.PART || type === Section.END) {
    if (left < 5) return ramSectionId === undefined ? false : "incomplete";
    return view.getUint32(at + 1) === ramSectionId;
  }
  if (type !== Section.START && type !== Section.FULL) return false;
  if (left < 6) return "incomplete";
  const nameBytes = bytes[at + 5];
  const name = bytes.subarray(at + 6, at + 6 + nameBytes);
  if (nameBytes === 0 || !name.every((byte) => byte > 0x20 && byte < 0x7f)) return false;
  if (left < 6 + nameBytes + 8) return "incomplete";
  return view.getUint32(at + 6 + nameBytes + 4) <= VERSION_MAX;
}
