/**
 * Rehearses a channel's codec until the JIT has compiled it, as `warm_up.ts` does for the page path:
 * scratch pages are encoded and decoded by codecs of their own, since a stream knows what went
 * through it.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { MissingLibraryError } from "../../ffi/errors.ts";
import { copyMemory } from "../../ffi/libc.ts";
import type { PageEncoder, PayloadSource } from "../codec/codec.ts";
import {
  createDecoder,
  createEncoder,
  resolveCompression,
  type ResolvedCompression,
} from "../codec/registry.ts";
import { PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { TableBlock } from "../memory/block_table.ts";
import { PageRuns } from "../memory/page_runs.ts";
import { IovecList } from "../memory/iovec_list.ts";
import type { Stoppable } from "../sync/semaphore.ts";

/** Packets to rehearse with, unless a slow library takes too long for them. */
const PACKETS = 150;
const BUDGET_MS = 25;

/** Pages of a packet, none next to another, so that each is a run of its own. */
const PAGES = 16;

/** From page 1 of a scratch block on, every so many pages one does not compress. */
export const NOISE_PAGE_STEP = 8;

/** Rehearses encoding pages of `block`. Ends early when `session` stops. */
export function warmUpEncoder(
  compression: ResolvedCompression,
  block: TableBlock,
  session: Stoppable,
): void {
  if (compression.method === "none") return;
  for (const packet of [ScratchPacket.mixed(block), ScratchPacket.noise(block)]) {
    using encoder = createEncoder(compression, block.pageSize);
    rehearse(session, () => packet.encode(encoder));
  }
}

/** Rehearses decoding to pages of `block`. Ends early when `session` stops. */
export function warmUpDecoder(
  compression: ResolvedCompression,
  block: TableBlock,
  session: Stoppable,
): void {
  const { method } = compression;
  if (method === "none") return;
  const packet = ScratchPacket.mixed(block);
  using encoder = encoderOf(method, block.pageSize);
  if (encoder === undefined) return;
  using decoder = createDecoder(compression, block.pageSize);
  rehearse(session, () => {
    packet.encode(encoder);
    decoder.decode(packet.runs, packet.rewind(), packet);
  });
}

function rehearse(session: Stoppable, step: () => void): void {
  const deadline = performance.now() + BUDGET_MS;
  for (let packet = 0; packet < PACKETS && !session.stopping; packet++) {
    step();
    if (performance.now() >= deadline) return;
  }
}

/** An encoder for what a receiver decodes; there need not be a library for it. */
function encoderOf(
  method: ResolvedCompression["method"],
  pageSize: number,
): PageEncoder | undefined {
  try {
    return createEncoder(resolveCompression(method, "encode", pageSize), pageSize);
  } catch (error) {
    if (error instanceof MissingLibraryError) return undefined;
    throw error;
  }
}

/** Pages of a block and what they are encoded to, which can be read again. */
class ScratchPacket implements PayloadSource {
  readonly runs: PageRuns;
  readonly #payload = new IovecList();
  readonly #bytes = new Arena(PAYLOAD_BYTES_MAX);
  #filled = 0;
  #taken = 0;

  /** Pages of all kinds. */
  static mixed(block: TableBlock): ScratchPacket {
    return new ScratchPacket(block, 2);
  }

  /** Pages that do not compress. */
  static noise(block: TableBlock): ScratchPacket {
    return new ScratchPacket(block, NOISE_PAGE_STEP);
  }

  private constructor(block: TableBlock, step: number) {
    const count = Math.min(PAGES, Math.floor(block.pages / step));
    const pages = Uint32Array.from({ length: count }, (_, index) => step * index + 1);
    this.runs = new PageRuns(count);
    this.runs.assign(block, pages, 0, count);
  }

  encode(encoder: PageEncoder): void {
    this.#payload.clear();
    encoder.encode(this.runs, this.#payload);
  }

  /** Starts reading the payload encoded last; returns its length. */
  rewind(): number {
    this.#taken = 0;
    this.#filled = 0;
    this.#payload.forEach((address, bytes) => {
      copyMemory(this.#bytes.address + this.#filled, address, bytes);
      this.#filled += bytes;
    });
    return this.#filled;
  }

  receive(address: number, bytes: number): void {
    if (this.#taken + bytes > this.#filled) throw new RangeError("Cannot read behind the payload");
    copyMemory(address, this.#bytes.address + this.#taken, bytes);
    this.#taken += bytes;
  }

  receiveRuns(runs: PageRuns): void {
    for (let run = 0; run < runs.count; run++) this.receive(runs.addresses[run], runs.lengths[run]);
  }
}
