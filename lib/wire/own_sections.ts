/**
 * The sections that only peers of this library send: one line each, with what it holds. A QEMU never
 * gets one, because it ends a migration at a section it does not know.
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import type { ByteReader } from "./byte_reader.ts";
import type { SectionHeader } from "./main_stream.ts";
import type { MainStreamWriter } from "./main_stream_writer.ts";

const registry = [
  { sectionId: 2, idstr: "multifd/digests", version: 2 }, // 1 was BLAKE2b-256
  { sectionId: 3, idstr: "multifd/devices", version: 1 }, // buffers by device
  { sectionId: 3, idstr: "multifd/state", version: 1 }, // of a checkpoint, itself
  { sectionId: 3, idstr: "multifd/state", version: 2 }, // of a checkpoint, over the channels
] as const;

type OwnName = (typeof registry)[number]["idstr"];

/** A section of our own: how it is named, written and read. */
export interface OwnSection<Source, Content> {
  readonly header: SectionHeader;
  readonly encode: (source: Source) => Uint8Array;
  /** @throws {StreamError} when the data is malformed. */
  readonly decode: (reader: ByteReader) => Content;
}

/**
 * Header of a section.
 *
 * @throws {RangeError} when there is none with that version, which is a mistake of the caller.
 */
export function ownHeader(idstr: OwnName, version: number): SectionHeader {
  const found = registry.find((entry) => entry.idstr === idstr && entry.version === version);
  if (found === undefined) throw new RangeError(`Cannot name section ${idstr} version ${version}`);
  return { ...found, instanceId: 0 };
}

/**
 * Whether a section that came is this one.
 *
 * @throws {StreamError} when it is, but of another version: the peer is another release of the library.
 */
export function isOwnSection(
  came: SectionHeader,
  { header }: Pick<OwnSection<never, unknown>, "header">,
): boolean {
  if (came.idstr !== header.idstr) return false;
  if (came.version === header.version) return true;
  throw new StreamError(
    "ERR_MULTIFD_STREAM_SECTION",
    `Cannot read section ${came.idstr}: its version is ${came.version}, must be ${header.version}; ` +
      "both sides must be of one release of this library",
  );
}

/** Writes a section and returns its entry in the description. */
export function writeOwnSection<Source>(
  writer: MainStreamWriter,
  { header, encode }: OwnSection<Source, unknown>,
  source: Source,
): object {
  const data = encode(source);
  writer.fullSection(header, data);
  const { idstr, instanceId, version } = header;
  return {
    name: idstr,
    instance_id: instanceId,
    vmsd_name: idstr,
    version,
    fields: [{ name: "data", type: "buffer", size: data.byteLength }],
  };
}
