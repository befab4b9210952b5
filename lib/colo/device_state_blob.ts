/**
 * The device state of a checkpoint on the main connection: FULL sections and an end mark (main
 * channel description, section 11). A user of this library has one piece of state, which travels as
 * one section, or over the channels with a section that says how long it is; what a real guest sends
 * is handed on as it is.
 *
 * @module
 */
import { LimitError, StreamError } from "../errors.ts";
import { CHECKPOINT_STATE_BYTES_MAX } from "../limits.ts";
import { FOOTER_BYTES, Section, type SectionHeader } from "../wire/main_stream.ts";
import { encodeFullSection } from "../wire/main_stream_writer.ts";
import { ownHeader } from "../wire/own_sections.ts";
import { looksComplete } from "../wire/opaque_state.ts";

const LENGTH_BYTES = 8;
const NOTHING = new Uint8Array(0);

/** Everything of a section but its data: the same bytes each time. */
class Frame {
  readonly head: Uint8Array;
  readonly tail: Uint8Array;

  constructor(header: SectionHeader) {
    const frame = encodeFullSection(header, NOTHING);
    const end = frame.byteLength - FOOTER_BYTES;
    this.head = frame.subarray(0, end);
    this.tail = Uint8Array.of(...frame.subarray(end), Section.EOF);
  }

  /** The data between head and tail, if `blob` has them. */
  dataOf(blob: Uint8Array): Uint8Array | undefined {
    const end = blob.byteLength - this.tail.byteLength;
    const fits =
      end >= this.head.byteLength &&
      Buffer.compare(blob.subarray(0, this.head.byteLength), this.head) === 0 &&
      Buffer.compare(blob.subarray(end), this.tail) === 0;
    return fits ? blob.subarray(this.head.byteLength, end) : undefined;
  }
}

const HEADER = ownHeader("multifd/state", 1);
const inline = new Frame(HEADER);
const overChannels = new Frame(ownHeader("multifd/state", 2));

/** A blob in parts, to be written one after the other. */
export function blobWith(deviceState: Uint8Array): readonly Uint8Array[] {
  return [inline.head, deviceState, inline.tail];
}

/** As {@linkcode blobWith}, for a state of that length that goes over the channels. */
export function blobAbout(stateBytes: number): readonly Uint8Array[] {
  const length = new Uint8Array(LENGTH_BYTES);
  new DataView(length.buffer).setBigUint64(0, BigInt(stateBytes));
  return [overChannels.head, length, overChannels.tail];
}

/**
 * What a blob holds: the user's state, or the length of one that came over the channels. A blob of
 * other sections is returned whole.
 *
 * @throws {LimitError} for a length above `CHECKPOINT_STATE_BYTES_MAX`.
 */
export function readBlob(blob: Uint8Array): Uint8Array | number {
  const about = overChannels.dataOf(blob);
  if (about?.byteLength !== LENGTH_BYTES) return inline.dataOf(blob) ?? blob;
  const view = new DataView(about.buffer, about.byteOffset, LENGTH_BYTES);
  const bytes = Number(view.getBigUint64(0));
  checkStateBytes(bytes);
  return bytes;
}

/**
 * Checks that a blob can be kept as a guest's device sections: it begins with one and ends as they do.
 *
 * @throws {StreamError} when it cannot, or when it is the state of a program.
 */
export function checkGuestSections(blob: Uint8Array): void {
  const ours = inline.dataOf(blob) ?? overChannels.dataOf(blob);
  const reason =
    ours !== undefined
      ? `its device state is a program's, section ${HEADER.idstr}, and captured are those of guests`
      : blob[0] !== Section.FULL || !looksComplete(blob)
        ? `its ${blob.byteLength} bytes of device state must be FULL sections and an end mark`
        : undefined;
  if (reason === undefined) return;
  throw new StreamError("ERR_MULTIFD_STREAM_COLO", `Cannot take checkpoint: ${reason}`);
}

/** @throws {LimitError} when that much device state is not taken. */
export function checkStateBytes(bytes: number): void {
  if (bytes <= CHECKPOINT_STATE_BYTES_MAX) return;
  throw new LimitError(
    "ERR_MULTIFD_LIMIT_DEVICE_STATE",
    `Cannot take checkpoint: ${bytes} bytes of device state, at most ${CHECKPOINT_STATE_BYTES_MAX} are allowed`,
  );
}
