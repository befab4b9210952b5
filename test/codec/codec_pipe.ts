/** Runs codecs in memory: the payload of runs as bytes, and bytes as a decoder's source. */
import { Arena, viewOfMemory } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import type { PageDecoder, PageEncoder, PayloadSource } from "../../lib/codec/codec.ts";
import type { PageRuns } from "../../lib/memory/page_runs.ts";
import { IovecList } from "../../lib/memory/iovec_list.ts";

/** What is in the ranges of an iovec list, in order. */
export function gather(list: IovecList): Uint8Array<ArrayBuffer> {
  const entries = viewOfMemory(list.vectors(), list.count * 16).slice();
  const view = new DataView(entries.buffer);
  const parts: Uint8Array[] = [];
  for (let at = 0; at < entries.byteLength; at += 16) {
    const address = Number(view.getBigUint64(at, true));
    parts.push(viewOfMemory(address, Number(view.getBigUint64(at + 8, true))).slice());
  }
  return new Uint8Array(Buffer.concat(parts));
}

/** The payload of `runs`. */
export function encodeRuns(encoder: PageEncoder, runs: PageRuns): Uint8Array<ArrayBuffer> {
  const list = new IovecList();
  const bytes = encoder.encode(runs, list);
  const payload = gather(list);
  if (payload.byteLength !== bytes) throw new Error(`${bytes} bytes said, ${payload.byteLength}`);
  return payload;
}

/** A payload in memory; counts what a decoder takes of it. */
class MemoryPayload implements PayloadSource {
  readonly #arena: Arena;
  readonly #bytes: number;
  /** Bytes taken so far. */
  taken = 0;

  constructor(payload: Uint8Array) {
    this.#arena = new Arena(Math.max(1, payload.byteLength));
    this.#arena.u8.set(payload);
    this.#bytes = payload.byteLength;
  }

  receive(address: number, bytes: number): void {
    if (this.taken + bytes > this.#bytes) throw new Error("The decoder takes more than there is");
    copyMemory(address, this.#arena.address + this.taken, bytes);
    this.taken += bytes;
  }

  receiveRuns(runs: PageRuns): void {
    for (let run = 0; run < runs.count; run++) {
      this.receive(runs.addresses[run] ?? 0, runs.lengths[run] ?? 0);
    }
  }
}

/** Decodes a payload into `runs`; the decoder must take exactly all of it. */
export function decodeRuns(decoder: PageDecoder, runs: PageRuns, payload: Uint8Array): void {
  const source = new MemoryPayload(payload);
  decoder.decode(runs, payload.byteLength, source);
  if (source.taken !== payload.byteLength) throw new Error(`${source.taken} bytes taken`);
}
