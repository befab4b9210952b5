/**
 * The device state of a checkpoint on the main connection: FULL sections and an end mark (main
 * channel description, section 11). A user of this library has one piece of state, which travels as
 * one section; what a real guest sends is handed on as it is.
 *
 * @module
 */
import { Section, type SectionHeader } from "../wire/main_stream.ts";
import { encodeFullSection } from "../wire/main_stream_writer.ts";

const HEADER: SectionHeader = {
  sectionId: 3,
  idstr: "multifd/state",
  instanceId: 0,
  version: 1,
};
const FOOTER_BYTES = 5;

/** Everything of our section but its data: the same bytes each time. */
const frame = encodeFullSection(HEADER, new Uint8Array(0));
const head = frame.subarray(0, frame.byteLength - FOOTER_BYTES);
const tail = Uint8Array.of(...frame.subarray(frame.byteLength - FOOTER_BYTES), Section.EOF);

/** Bytes that a user's state grows by. */
export const BLOB_FRAME_BYTES = head.byteLength + tail.byteLength;

/** The parts of a blob, to be written one after the other. */
export function blobParts(deviceState: Uint8Array): readonly Uint8Array[] {
  return [head, deviceState, tail];
}

/** The user's state in a blob; a blob of other sections is returned whole. */
export function stateOf(blob: Uint8Array): Uint8Array {
  const end = blob.byteLength - tail.byteLength;
  const isOurs =
    end >= head.byteLength &&
    Buffer.compare(blob.subarray(0, head.byteLength), head) === 0 &&
    Buffer.compare(blob.subarray(end), tail) === 0;
  return isOurs ? blob.subarray(head.byteLength, end) : blob;
}
