import { expect, test } from "bun:test";
import {
  abstractUnixAddress,
  inetAddress,
  readInetAddress,
  unixAddress,
} from "../lib/net/socket_address.ts";
import { hex } from "./kit/byte_ends.ts";

test("addresses are laid out as sockaddr_in, sockaddr_in6 and sockaddr_un", () => {
  expect(inetAddress("127.0.0.1", 4444, "").bytes).toEqual(
    hex("0200 115c 7f000001 0000000000000000"),
  );
  expect(inetAddress("2001:db8::5:0:1", 80, "").bytes).toEqual(
    hex("0a00 0050 00000000 20010db8 00000000 00000005 00000001 00000000"),
  );
  expect(unixAddress(Buffer.from("/a/b"), "").bytes).toEqual(hex("0100 2f612f62 00"));
  expect(abstractUnixAddress(Buffer.from("ab"), "").bytes).toEqual(hex("0100 00 6162"));
});

test("readInetAddress() reads back what was written", () => {
  for (const [host, port] of [
    ["0.0.0.0", 0],
    ["255.1.2.3", 65_535],
    ["::", 1],
    ["::1", 2],
    ["1::", 3],
    ["1:2:3:4:5:6:7:8", 4],
    ["2001:db8::1", 5],
    ["::ffff:1.2.3.4", 6],
  ] as const) {
    const written = inetAddress(host, port, "").bytes;
    const read = readInetAddress(written);
    expect(inetAddress(read.host, read.port, "").bytes).toEqual(written);
  }
  expect(readInetAddress(inetAddress("::1", 2, "").bytes)).toEqual({ host: "::1", port: 2 });
});

test("inetAddress() asks for a numeric host and knows the family", () => {
  expect(unixAddress(Buffer.from("/x"), "").family).toBe(1);
  expect(inetAddress("1.2.3.4", 5, "").family).toBe(2);
  expect(inetAddress("::1", 5, "").family).toBe(10);
  expect(() => inetAddress("localhost", 5, "")).toThrow(TypeError);
});
