/**
 * What `virsh save` puts in front of a guest's stream: a header of its own and the domain's XML. All
 * positions in a mapped-ram stream count from the start of the file, so the stream is read where it
 * is.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { fileError } from "./mapped_ram_format.ts";
import type { PositionedSource } from "./positioned_io.ts";

/*
 * Header, in the byte order of the machine that saved:
 *   0  char[16] magic    16  u32 version    20  u32 bytes that follow the header
 *  24  u32 was running   28  u32 format     32  u32 more, up to byte 92
 */
const MAGIC = "LibvirtQemudSave";
/** The magic until saving is complete. */
const MAGIC_PARTIAL = "LibvirtQemudPart";
const DATA_BYTES_AT = 20;
const HEADER_BYTES = 92;

/**
 * Where the stream starts in a file.
 *
 * @param offset Where the caller looks for it. 0 means behind libvirt's header if there is one.
 * @throws {StreamError} when libvirt's header is not one of a complete file.
 */
export function streamStart(source: PositionedSource, offset: number): number {
  if (offset !== 0 || source.bytes < HEADER_BYTES) return offset;
  const head = new Arena(HEADER_BYTES);
  source.read(head.address, HEADER_BYTES, 0);
  const magic = new TextDecoder("latin1").decode(head.u8.slice(0, MAGIC.length));
  if (magic === MAGIC_PARTIAL) {
    throw fileError("TRUNCATED", "libvirt has not saved it to the end, its magic says so");
  }
  if (magic !== MAGIC) return offset;
  const start = HEADER_BYTES + head.view.getUint32(DATA_BYTES_AT, true);
  if (start >= source.bytes) {
    throw fileError(
      "TRUNCATED",
      `its stream is at ${start} by libvirt's header, the file ends at ${source.bytes}`,
    );
  }
  return start;
}
