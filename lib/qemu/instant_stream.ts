/**
 * What a source whose memory follows its guest says in front of the switch, and what it says of a failure.
 *
 * @module
 */
import { MultifdError, SystemError } from "../errors.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import type { ByteWriter } from "../wire/byte_writer.ts";
import { PING_VALUE } from "../wire/main_stream.ts";
import { MainStreamWriter } from "../wire/main_stream_writer.ts";
import { replyError } from "../wire/postcopy_replies.ts";
import { writeAdvise, writeDiscard } from "../wire/postcopy_stream.ts";
import type { InstantConfig } from "./instant_messages.ts";

/** Writes everything up to the first PING, and flushes. */
export function writeInstantStart(out: ByteWriter, { state, uuid }: InstantConfig): void {
  const writer = new MainStreamWriter(out);
  writer.header({
    machine: state.machine,
    pageBits: state.pageBits,
    capabilities: [],
    uuid: state.validateUuid ? uuid : undefined,
  });
  writer.openReturnPath();
  writer.ping(PING_VALUE);
  out.flush();
}

/** Writes that memory may follow, the sections in front of RAM, which RAM there is, and that none has come. */
export function writeInstantSetup(out: ByteWriter, config: InstantConfig): void {
  const { state, pages, hostPages } = config;
  const writer = new MainStreamWriter(out, state.ramSectionId);
  writeAdvise(out, hostPages, pages.blocks[0].pageSize);
  writer.verbatim(state.early);
  writer.beginRamSection("start");
  writer.blockList(
    pages.blocks.map((block, index) => ({
      ...block,
      index,
      idBytes: new TextEncoder().encode(block.idstr),
    })),
    hostPages,
  );
  writer.endRamSection();
  if (state.switchoverStart) writer.switchoverStart();
  for (const block of pages.blocks) writeDiscard(out, block);
}

const BITMAP_END = [0x0123_4567, 0x89ab_cdef] as const;

/**
 * Reads which pages of a block of `pages` pages the destination has.
 *
 * @throws {StreamError} when it is not as long as it must be, or has no end.
 */
export function readReceivedBitmap(reader: ByteReader, pages: number): PageBitmap {
  const bytes = reader.u64();
  if (bytes !== PageBitmap.bytesFor(pages)) {
    throw replyError(
      `a bitmap has ${bytes} bytes, for ${pages} pages it must have ${PageBitmap.bytesFor(pages)}`,
    );
  }
  const received = new PageBitmap(pages);
  new Uint8Array(received.buffer).set(reader.bytes(bytes));
  for (const word of BITMAP_END) {
    if (reader.u32() !== word) throw replyError("a bitmap does not end with its mark");
  }
  return received;
}

/** Where a restore was when it failed. */
interface InstantMoment {
  /** Whether the guest has run at the destination; undefined when that is not known. */
  readonly ran: boolean | undefined;
  /** Pages that the destination has not. */
  readonly left: number;
  readonly peer: string;
  readonly phase: string;
}

/** The same error, which says as well which side has what. */
export function explainInstant(error: unknown, moment: InstantMoment): unknown {
  if (!(error instanceof MultifdError)) return error;
  const { ran, left, peer } = moment;
  const { code, message, errno, phase = moment.phase } = error;
  const where =
    ran === undefined
      ? "whether the guest has run at the destination is not known; the file is as it was"
      : ran
        ? `the guest runs at the destination without ${left} of its pages, which only the file has; the file is as it was`
        : "the guest has not run at the destination, and the file is as it was";
  const text = `${message}; ${where}`;
  const context = { side: "source", peer, errno, phase, cause: error } as const;
  if (error instanceof SystemError) return new SystemError(text, context);
  const Class = error.constructor as typeof MultifdError;
  return new Class(code, text, context);
}
