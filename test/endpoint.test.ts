import { expect, test } from "bun:test";
import { formatEndpoint, parseEndpoint } from "../mod.ts";

test("parseEndpoint() reads the four forms, and formatEndpoint() writes them", () => {
  for (const [text, endpoint] of [
    ["127.0.0.1:4444", { kind: "tcp", host: "127.0.0.1", port: 4444 }],
    ["localhost:0", { kind: "tcp", host: "localhost", port: 0 }],
    ["host.example:65535", { kind: "tcp", host: "host.example", port: 65_535 }],
    ["[::1]:4444", { kind: "tcp", host: "::1", port: 4444 }],
    ["[fe80::1]:1", { kind: "tcp", host: "fe80::1", port: 1 }],
    ["unix:/run/x:y.sock", { kind: "unix", path: "/run/x:y.sock" }],
    ["unix-abstract:a/b:c", { kind: "unix-abstract", name: "a/b:c" }],
  ] as const) {
    expect(parseEndpoint(text)).toEqual(endpoint);
    expect(formatEndpoint(endpoint)).toBe(text);
  }
});

test("parseEndpoint() rejects every other form", () => {
  for (const text of [
    "",
    "host",
    "host:",
    ":4444",
    "host:port",
    "host:65536",
    "host:-1",
    "host:1.5",
    "host:123456",
    "::1:4444",
    "[::1]",
    "[::1]4444",
    "[127.0.0.1]:4444",
    "[host]:4444",
    "[]:4444",
    "tcp:host:4444",
    "host:4444 ",
    "unix:",
    "unix:/a\0b",
    "unix-abstract:",
    "unix-abstract:a\0b",
  ]) {
    expect(() => parseEndpoint(text)).toThrow(TypeError);
  }
});

test("parseEndpoint() takes Unix socket paths up to the kernel's 107 bytes", () => {
  expect(parseEndpoint(`unix:/${"x".repeat(106)}`).kind).toBe("unix");
  expect(() => parseEndpoint(`unix:/${"x".repeat(107)}`)).toThrow(TypeError);
  expect(() => parseEndpoint(`unix:/${"ä".repeat(54)}`)).toThrow(TypeError);
  expect(parseEndpoint(`unix-abstract:${"x".repeat(107)}`).kind).toBe("unix-abstract");
  expect(() => parseEndpoint(`unix-abstract:${"x".repeat(108)}`)).toThrow(TypeError);
});
