/**
 * Method qatzip: the pages of a packet one after another, compressed to gzip members with QATzip's
 * extra field (wire format, section 7.6). Members hold 64 KiB each, as QATzip's accelerator makes
 * them. Packets are independent of each other.
 *
 * Pages are copied first: they may change, and a member's checksum must be that of its content.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import { PACKET_PAYLOAD_BYTES, PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { PageRuns } from "../memory/page_runs.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import {
  asCodecError,
  codecError,
  type PageDecoder,
  type PageEncoder,
  type PayloadSource,
} from "./codec.ts";
import {
  MEMBER_HEADER_BYTES,
  MEMBER_TRAILER_BYTES,
  readMemberHeader,
  readU32,
  STORED_BYTES_MAX,
  STORED_HEADER_BYTES,
  storedBytes,
  writeMemberHeader,
  writeMemberTrailer,
  writeStoredHeader,
} from "./deflate_container.ts";
import type { Checksums, RangeCompressor, RangeDecompressor } from "./engine.ts";
import { EntropySampler } from "./entropy_sampler.ts";

const METHOD = "qatzip";

/** Content of one member. */
const MEMBER_BYTES = 65_536;

/** QATzip's accelerator has the full window of deflate. */
export const QATZIP_WINDOW_BITS = 15;

/** See the module comment. */
export class QatzipEncoder implements PageEncoder {
  readonly #pageSize: number;
  readonly #checksums: Checksums;
  readonly #makeCompressor: (level: number) => RangeCompressor;
  readonly #sampler = new EntropySampler();
  readonly #copy = new Arena(MEMBER_BYTES);
  readonly #output = new Arena(PAYLOAD_BYTES_MAX);
  #compressor: RangeCompressor;
  /** Bytes of the next member so far, in the copy. */
  #copied = 0;
  /** Whether one of its pages looks compressible. */
  #compressible = false;
  #filled = 0;

  /** @param compressor Makes the compressor of a level; what it makes is the encoder's. */
  constructor(
    pageSize: number,
    level: number,
    compressor: (level: number) => RangeCompressor,
    checksums: Checksums,
  ) {
    this.#pageSize = pageSize;
    this.#makeCompressor = compressor;
    this.#checksums = checksums;
    this.#compressor = compressor(level);
  }

  setLevel(level: number): void {
    this.#compressor[Symbol.dispose]();
    this.#compressor = this.#makeCompressor(level);
  }

  encode(runs: PageRuns, payload: IovecList): number {
    const pageSize = this.#pageSize;
    this.#filled = 0;
    for (let run = 0; run < runs.count; run++) {
      const end = runs.addresses[run] + runs.lengths[run];
      for (let address = runs.addresses[run]; address < end; address += pageSize) {
        copyMemory(this.#copy.address + this.#copied, address, pageSize);
        this.#compressible ||= !this.#sampler.isIncompressible(
          this.#copy.address + this.#copied,
          pageSize,
        );
        this.#copied += pageSize;
        if (this.#copied === MEMBER_BYTES) this.#writeMember();
      }
    }
    this.#writeMember();
    payload.append(this.#output.address, this.#filled);
    return this.#filled;
  }

  [Symbol.dispose](): void {
    this.#compressor[Symbol.dispose]();
  }

  #writeMember(): void {
    const contentBytes = this.#copied;
    if (contentBytes === 0) return;
    const at = this.#filled;
    const deflateAt = at + MEMBER_HEADER_BYTES;
    let deflateBytes = 0;
    if (this.#compressible) {
      deflateBytes = this.#compressor.deflate(
        this.#copy.address,
        contentBytes,
        this.#output.address + deflateAt,
        storedBytes(contentBytes) - 1,
      );
    }
    if (deflateBytes === 0) deflateBytes = this.#writeStored(deflateAt, contentBytes);
    writeMemberHeader(this.#output.u8, at, contentBytes, deflateBytes);
    const crc = this.#checksums.crc32(this.#copy.address, contentBytes);
    writeMemberTrailer(this.#output.u8, deflateAt + deflateBytes, crc, contentBytes);
    this.#filled = deflateAt + deflateBytes + MEMBER_TRAILER_BYTES;
    this.#copied = 0;
    this.#compressible = false;
  }

  #writeStored(at: number, contentBytes: number): number {
    let end = at;
    for (let done = 0; done < contentBytes; done += STORED_BYTES_MAX) {
      const bytes = Math.min(STORED_BYTES_MAX, contentBytes - done);
      writeStoredHeader(this.#output.u8, end, bytes, done + bytes === contentBytes);
      end += STORED_HEADER_BYTES;
      copyMemory(this.#output.address + end, this.#copy.address + done, bytes);
      end += bytes;
    }
    return end - at;
  }
}

/** See the module comment. Members of any size and from any gzip are accepted. */
export class QatzipDecoder implements PageDecoder {
  readonly #decompressor: RangeDecompressor;
  readonly #checksums: Checksums;
  readonly #input = new Arena(PAYLOAD_BYTES_MAX);
  /** Where members go whose pages are not neighbours in memory. */
  readonly #output = new Arena(PACKET_PAYLOAD_BYTES);

  /** @param decompressor Owned by the decoder from now on. */
  constructor(decompressor: RangeDecompressor, checksums: Checksums) {
    this.#decompressor = decompressor;
    this.#checksums = checksums;
  }

  decode(runs: PageRuns, payloadBytes: number, source: PayloadSource): void {
    source.receive(this.#input.address, payloadBytes);
    const scattered = runs.count > 1;
    const target = scattered ? this.#output.address : runs.addresses[0];
    try {
      let at = 0;
      let done = 0;
      while (at < payloadBytes) {
        const got = this.#readMember(at, payloadBytes, target + done, runs.bytes - done);
        done += got;
        at = this.#memberEnd;
      }
      if (done < runs.bytes) throw codecError(METHOD, "it ends before its pages are full");
    } catch (error) {
      throw asCodecError(METHOD, error);
    }
    if (scattered) this.#scatter(runs);
  }

  [Symbol.dispose](): void {
    this.#decompressor[Symbol.dispose]();
  }

  #memberEnd = 0;

  #readMember(at: number, end: number, target: number, room: number): number {
    const input = this.#input.u8;
    const { deflateAt, contentBytes, deflateBytes } = readMemberHeader(METHOD, input, at, end);
    const available = end - deflateAt - MEMBER_TRAILER_BYTES;
    if (available <= 0 || (deflateBytes ?? 0) > available) {
      throw codecError(METHOD, "it ends inside a gzip member");
    }
    const from = this.#input.address + deflateAt;
    const got = this.#decompressor.inflate(from, deflateBytes ?? available, target, room);
    const used = (deflateBytes ?? available) - this.#decompressor.inputLeft;
    if (deflateBytes !== null && used !== deflateBytes) {
      throw codecError(METHOD, `a member takes ${used} bytes, its header says ${deflateBytes}`);
    }
    const trailer = deflateAt + used;
    for (const announced of [contentBytes ?? got, readU32(input, trailer + 4)]) {
      if (announced !== got) {
        throw codecError(METHOD, `a member gives ${got} bytes, it announces ${announced}`);
      }
    }
    if (this.#checksums.crc32(target, got) !== readU32(input, trailer)) {
      throw codecError(METHOD, "a member has another CRC-32 than its trailer");
    }
    this.#memberEnd = trailer + MEMBER_TRAILER_BYTES;
    return got;
  }

  #scatter(runs: PageRuns): void {
    let from = this.#output.address;
    for (let run = 0; run < runs.count; run++) {
      copyMemory(runs.addresses[run], from, runs.lengths[run]);
      from += runs.lengths[run];
    }
  }
}
