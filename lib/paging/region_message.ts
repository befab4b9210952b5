/**
 * The message with which a virtual machine monitor hands its guest's memory over, as Firecracker sends
 * it: a list of regions in JSON, beside the userfaultfd. It is hostile.
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import { REGION_PAGE_BYTES_MAX, REGIONS_MAX } from "../limits.ts";
import { newPageRange, type SharedPageRange } from "./page_range.ts";

/** A block whose pages are served, as the thread that serves has it. */
export interface ServedBlock {
  readonly idstr: string;
  readonly bytes: number;
  readonly pageSize: number;
  readonly present: SharedArrayBuffer;
}

interface Region {
  readonly address: number;
  readonly bytes: number;
  /** Where its content is: a byte of all blocks behind one another. */
  readonly offset: number;
  readonly unitBytes: number;
}

/** Lowest address of a region: the memory in front of it tells whether a process is there, no more. */
export const REGION_ADDRESS_MIN = 131_072;
/** No address of a process is as high: 2^56 bytes, with five levels of page tables. */
const ADDRESS_MAX = 0x100_0000_0000_0000;
const PAGE_BYTES = 4096;
const KIB = 1024;

/**
 * Parses the message.
 *
 * @returns undefined when it has not come to its end.
 */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/**
 * What is to be brought in where, of what JSON says.
 *
 * @throws {StreamError} with code `ERR_MULTIFD_STREAM_REGIONS` for regions that cannot be served.
 */
export function rangesOf(json: unknown, blocks: readonly ServedBlock[]): SharedPageRange[] {
  if (!Array.isArray(json) || json.length < 1 || json.length > REGIONS_MAX) {
    throw refuse(`the message must be a list of 1 to ${REGIONS_MAX} regions`);
  }
  const least = Math.max(PAGE_BYTES, ...blocks.map(({ pageSize }) => pageSize));
  const regions = json.map((region: unknown) => regionOf(region, least));
  const ordered = regions.toSorted((left, right) => left.address - right.address);
  for (const [index, { address, bytes }] of ordered.entries()) {
    const next = ordered[index + 1];
    if (next !== undefined && address + bytes > next.address) {
      throw refuse(`regions at ${address} and ${next.address} overlap`);
    }
  }
  return regions.flatMap((region) => piecesOf(region, blocks));
}

function regionOf(json: unknown, least: number): Region {
  if (typeof json !== "object" || json === null) throw refuse("a region must be an object");
  const fields = json as Readonly<Record<string, unknown>>;
  const address = numberOf(fields, "base_host_virt_addr");
  const bytes = numberOf(fields, "size");
  const offset = numberOf(fields, "offset");
  const unitBytes = Math.max(least, pageSizeOf(fields));
  const isWhole = [address, bytes, offset].every((value) => value % unitBytes === 0);
  const isInside = address >= REGION_ADDRESS_MIN && address + bytes <= ADDRESS_MAX;
  if (!isWhole || bytes === 0 || !isInside) {
    const need = `whole pages of ${unitBytes} from ${REGION_ADDRESS_MIN} on`;
    throw refuse(`a region of ${bytes} bytes at ${address}, content at ${offset}: must be ${need}`);
  }
  return { address, bytes, offset, unitBytes };
}

/** Its name says KiB where Firecracker means bytes; no page has less than 4 KiB. */
function pageSizeOf(fields: Readonly<Record<string, unknown>>): number {
  const name = ["page_size", "page_size_kib"].find((candidate) => candidate in fields);
  if (name === undefined) return PAGE_BYTES;
  const value = numberOf(fields, name);
  const bytes = value < PAGE_BYTES ? value * KIB : value;
  if (bytes >= PAGE_BYTES && bytes <= REGION_PAGE_BYTES_MAX && Number.isInteger(Math.log2(bytes))) {
    return bytes;
  }
  throw refuse(`pages of ${bytes} bytes, must be ${PAGE_BYTES} to ${REGION_PAGE_BYTES_MAX}`);
}

function numberOf(fields: Readonly<Record<string, unknown>>, name: string): number {
  const value = fields[name];
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
  throw refuse(`a region's ${name} must be a whole number`);
}

/** A region may reach over several blocks. */
function piecesOf(region: Region, blocks: readonly ServedBlock[]): SharedPageRange[] {
  const { address, bytes, offset, unitBytes } = region;
  const pieces: SharedPageRange[] = [];
  let start = 0;
  for (const [block, { idstr, bytes: blockBytes, pageSize, present }] of blocks.entries()) {
    const from = Math.max(offset, start);
    const to = Math.min(offset + bytes, start + blockBytes);
    if (from < to) {
      if ((from - start) % unitBytes !== 0 || (to - from) % unitBytes !== 0) {
        throw refuse(`RAM block ${idstr} does not consist of whole pages of ${unitBytes} bytes`);
      }
      pieces.push(
        newPageRange({
          idstr,
          address: address + (from - offset),
          bytes: to - from,
          unitBytes,
          block,
          blockOffset: from - start,
          pageSize,
          blockPages: blockBytes / pageSize,
          present,
        }),
      );
    }
    start += blockBytes;
  }
  if (offset + bytes <= start) return pieces;
  throw refuse(
    `a region's content ends at ${offset + bytes}, the memory that is served at ${start}`,
  );
}

function refuse(reason: string): StreamError {
  return new StreamError("ERR_MULTIFD_STREAM_REGIONS", `Cannot serve page faults: ${reason}`);
}
