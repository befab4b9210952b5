import { expect, test } from "bun:test";
import { Arena } from "../ffi/arena.ts";
import { parseEndpoint } from "../lib/net/endpoint.ts";
import {
  addressFamily,
  readSocketAddress,
  SOCKET_ADDRESS_BYTES,
  writeSocketAddress,
} from "../lib/net/socket_address.ts";
import { hex } from "./kit/byte_ends.ts";

function bytesOf(endpoint: string): Uint8Array {
  const arena = new Arena(SOCKET_ADDRESS_BYTES);
  // Whatever lay there before must not show through.
  arena.u8.fill(0xaa);
  const length = writeSocketAddress(arena, 0, parseEndpoint(endpoint));
  return arena.u8.slice(0, length);
}

test("writeSocketAddress() lays out sockaddr_in, sockaddr_in6 and sockaddr_un", () => {
  expect(bytesOf("127.0.0.1:4444")).toEqual(hex("0200 115c 7f000001 0000000000000000"));
  expect(bytesOf("[2001:db8::5:0:1]:80")).toEqual(
    hex("0a00 0050 00000000 20010db8 00000000 00000005 00000001 00000000"),
  );
  expect(bytesOf("unix:/a/b")).toEqual(hex("0100 2f612f62 00"));
});

test("readSocketAddress() reads back what was written", () => {
  for (const text of [
    "0.0.0.0:0",
    "255.1.2.3:65535",
    "[::]:1",
    "[::1]:2",
    "[1::]:3",
    "[1:2:3:4:5:6:7:8]:4",
    "[2001:db8::1]:5",
    "[::ffff:1.2.3.4]:6",
  ]) {
    const arena = new Arena(SOCKET_ADDRESS_BYTES);
    const endpoint = parseEndpoint(text);
    writeSocketAddress(arena, 0, endpoint);
    const read = readSocketAddress(arena, 0);
    const again = new Arena(SOCKET_ADDRESS_BYTES);
    writeSocketAddress(again, 0, read ?? endpoint);
    expect(again.u8).toEqual(arena.u8);
    expect(read).toMatchObject({ kind: "tcp" });
  }
  const arena = new Arena(SOCKET_ADDRESS_BYTES);
  writeSocketAddress(arena, 0, parseEndpoint("[::1]:2"));
  expect(readSocketAddress(arena, 0)).toEqual({ kind: "tcp", host: "::1", port: 2 });
});

test("readSocketAddress() knows no address of a Unix socket's client", () => {
  const arena = new Arena(SOCKET_ADDRESS_BYTES);
  arena.view.setUint16(0, 1, true);
  expect(readSocketAddress(arena, 0)).toBeUndefined();
});

test("addressFamily() asks for a numeric host", () => {
  expect(addressFamily(parseEndpoint("unix:/x"))).toBe(1);
  expect(addressFamily(parseEndpoint("1.2.3.4:5"))).toBe(2);
  expect(addressFamily(parseEndpoint("[::1]:5"))).toBe(10);
  expect(() => addressFamily(parseEndpoint("localhost:5"))).toThrow(TypeError);
});
