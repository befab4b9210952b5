/**
 * `sockaddr` structs as bytes. Hosts must be numeric here: names are resolved before, on the event
 * loop, since the C resolver would block without a limit.
 *
 * @module
 */
import { AddressFamily } from "../../ffi/linux.ts";
import { ipVersion } from "./ip_address.ts";

/** Where a socket is bound or connects to. */
export interface SocketAddress {
  /** `socket()` domain. */
  readonly family: number;
  /** The struct. */
  readonly bytes: Uint8Array;
  /** As text, for messages. */
  readonly name: string;
}

/*
 * sockaddr_in:  0 u16 family, 2 u16 port (BE), 4 u8[4] address, 16 bytes in all
 * sockaddr_in6: 0 u16 family, 2 u16 port (BE), 4 u32 flow, 8 u8[16] address, 24 u32 scope, 28 bytes
 * sockaddr_un:  0 u16 family, 2 char[108] path
 */
const PORT_AT = 2;
const INET_ADDRESS_AT = 4;
const INET_BYTES = 16;
const INET6_ADDRESS_AT = 8;
const INET6_BYTES = 28;
const UNIX_PATH_AT = 2;

/** Room for the largest of the structs. */
export const SOCKET_ADDRESS_BYTES = 128;

/**
 * The address of a host and port.
 *
 * @throws {TypeError} when the host is not numeric.
 */
export function inetAddress(host: string, port: number, name: string): SocketAddress {
  const version = ipVersion(host);
  if (version === 0) {
    throw new TypeError(`Cannot use host ${host}: must be a numeric address here`);
  }
  const family = version === 4 ? AddressFamily.INET : AddressFamily.INET6;
  const { bytes, view } = struct(version === 4 ? INET_BYTES : INET6_BYTES, family);
  view.setUint16(PORT_AT, port);
  if (version === 4) {
    bytes.set(host.split(".").map(Number), INET_ADDRESS_AT);
  } else {
    ipv6Groups(host).forEach((group, index) => view.setUint16(INET6_ADDRESS_AT + index * 2, group));
  }
  return { family, bytes, name };
}

/** The host and port of an address that is no other. */
export function readInetAddress(bytes: Uint8Array): { host: string; port: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const port = view.getUint16(PORT_AT);
  if (view.getUint16(0, true) === AddressFamily.INET) {
    const host = bytes.subarray(INET_ADDRESS_AT, INET_ADDRESS_AT + 4).join(".");
    return { host, port };
  }
  const groups = Array.from({ length: 8 }, (_, index) =>
    view.getUint16(INET6_ADDRESS_AT + index * 2).toString(16),
  );
  // The URL parser knows the shortest spelling of an address.
  return { host: new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1), port };
}

/** The address of a Unix socket's file. */
export function unixAddress(path: Uint8Array, name: string): SocketAddress {
  const { bytes } = struct(UNIX_PATH_AT + path.byteLength + 1, AddressFamily.UNIX);
  bytes.set(path, UNIX_PATH_AT);
  return { family: AddressFamily.UNIX, bytes, name };
}

/** The address of a Unix socket without a file: a NUL stands in front, and the length counts. */
export function abstractUnixAddress(path: Uint8Array, name: string): SocketAddress {
  const { bytes } = struct(UNIX_PATH_AT + 1 + path.byteLength, AddressFamily.UNIX);
  bytes.set(path, UNIX_PATH_AT + 1);
  return { family: AddressFamily.UNIX, bytes, name };
}

function struct(length: number, family: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, family, true);
  return { bytes, view };
}

function ipv6Groups(host: string): number[] {
  const plain = new URL(`http://[${host.split("%")[0]}]`).hostname.slice(1, -1);
  const [head = "", tail] = plain.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => "0");
  return [...left, ...zeros, ...right].map((group) => parseInt(group, 16));
}
