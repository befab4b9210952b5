/**
 * What a source writes on its main connection when memory follows the guest (main channel description,
 * section 12): in front of the RAM, at the switch, and when it takes the migration up again.
 *
 * @module
 */
import type { ByteWriter } from "./byte_writer.ts";
import { Command, Section } from "./main_stream.ts";

/** PINGs whose answers tell how far the destination is. */
export const PostcopyPing = {
  /** The state of all devices is loaded. */
  DEVICES_LOADED: 3,
  /** The guest is about to run. */
  RUNNING: 0x42,
  /** This one and those above it: pages up to here are in place. */
  PAGES: 0x1000,
} as const;

/** A block's RAM, as far as commands are about it. */
interface NamedBlock {
  readonly idstr: string;
  readonly bytes: number;
}

function command(out: ByteWriter, number: number, bytes: number): void {
  out.u8(Section.COMMAND);
  out.u16(number);
  out.u16(bytes);
}

/**
 * Says that memory may follow.
 *
 * @param hostPages Sizes of the pages that the blocks' memory is made of.
 * @param pageSize Of the target.
 */
export function writeAdvise(out: ByteWriter, hostPages: readonly number[], pageSize: number): void {
  command(out, Command.POSTCOPY_ADVISE, 16);
  out.u64(hostPages.reduce((all, size) => all | size, 0));
  out.u64(pageSize);
}

/** Asks for an answer when everything in front of it is done. */
export function writePing(out: ByteWriter, value: number): void {
  command(out, Command.PING, 4);
  out.u32(value);
}

/** Has the destination forget a block's memory. Each block needs that before its pages can follow. */
export function writeDiscard(out: ByteWriter, { idstr, bytes }: NamedBlock): void {
  const name = new TextEncoder().encode(idstr);
  command(out, Command.POSTCOPY_RAM_DISCARD, 1 + 1 + name.byteLength + 1 + 16);
  out.u8(0);
  out.countedString(idstr);
  out.u8(0);
  out.u64(0);
  out.u64(bytes);
}

/** The device state in one piece, after which the guest runs. */
export function writePackage(out: ByteWriter, sections: Uint8Array): void {
  const commandBytes = 5;
  const pingBytes = commandBytes + 4;
  command(out, Command.PACKAGED, 4);
  out.u32(sections.byteLength + 2 * commandBytes + 2 * pingBytes);
  command(out, Command.POSTCOPY_LISTEN, 0);
  out.bytes(sections);
  writePing(out, PostcopyPing.DEVICES_LOADED);
  writePing(out, PostcopyPing.RUNNING);
  command(out, Command.POSTCOPY_RUN, 0);
}

/** Asks which pages of a block the destination has. */
export function writeBitmapRequest(out: ByteWriter, idstr: string): void {
  command(out, Command.RECV_BITMAP, 1 + new TextEncoder().encode(idstr).byteLength);
  out.countedString(idstr);
}

/** Goes on after a cut. */
export function writeResume(out: ByteWriter): void {
  command(out, Command.POSTCOPY_RESUME, 0);
}
