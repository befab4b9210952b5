/**
 * `sockaddr` structs to and from endpoints. Hosts must be numeric here: names are resolved before,
 * on the event loop, since the C resolver would block without a limit.
 *
 * @module
 */
import { isIP } from "node:net";
import type { Arena } from "../../ffi/arena.ts";
import { AddressFamily } from "../../ffi/linux.ts";
import type { Endpoint } from "./endpoint.ts";

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
 * Writes the address of `endpoint` at `at` and returns its length in bytes.
 *
 * @throws {TypeError} when the host is not numeric.
 */
export function writeSocketAddress(arena: Arena, at: number, endpoint: Endpoint): number {
  const { view, u8 } = arena;
  u8.fill(0, at, at + SOCKET_ADDRESS_BYTES);
  view.setUint16(at, addressFamily(endpoint), true);
  if (endpoint.kind === "unix") {
    const path = new TextEncoder().encode(endpoint.path);
    u8.set(path, at + UNIX_PATH_AT);
    return UNIX_PATH_AT + path.byteLength + 1;
  }
  view.setUint16(at + PORT_AT, endpoint.port);
  if (isIP(endpoint.host) === 4) {
    u8.set(endpoint.host.split(".").map(Number), at + INET_ADDRESS_AT);
    return INET_BYTES;
  }
  ipv6Groups(endpoint.host).forEach((group, index) =>
    view.setUint16(at + INET6_ADDRESS_AT + index * 2, group),
  );
  return INET6_BYTES;
}

/** The endpoint whose address is at `at`; undefined for unnamed Unix sockets. */
export function readSocketAddress(arena: Arena, at: number): Endpoint | undefined {
  const { view, u8 } = arena;
  const family = view.getUint16(at, true);
  const port = view.getUint16(at + PORT_AT);
  if (family === AddressFamily.INET) {
    const address = u8.subarray(at + INET_ADDRESS_AT, at + INET_ADDRESS_AT + 4);
    return { kind: "tcp", host: address.join("."), port };
  }
  if (family === AddressFamily.INET6) {
    const groups = Array.from({ length: 8 }, (_, index) =>
      view.getUint16(at + INET6_ADDRESS_AT + index * 2).toString(16),
    );
    // The URL parser knows the shortest spelling of an address.
    return {
      kind: "tcp",
      host: new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1),
      port,
    };
  }
  return undefined;
}

/** `socket()` domain of an endpoint. */
export function addressFamily(endpoint: Endpoint): number {
  if (endpoint.kind === "unix") return AddressFamily.UNIX;
  const version = isIP(endpoint.host);
  if (version === 0) {
    throw new TypeError(`Cannot use host ${endpoint.host}: must be a numeric address here`);
  }
  return version === 4 ? AddressFamily.INET : AddressFamily.INET6;
}

function ipv6Groups(host: string): number[] {
  const plain = new URL(`http://[${host.split("%")[0]}]`).hostname.slice(1, -1);
  const [head = "", tail] = plain.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => "0");
  return [...left, ...zeros, ...right].map((group) => parseInt(group, 16));
}
