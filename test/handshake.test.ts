import { expect, test } from "bun:test";
import { HandshakeError } from "../mod.ts";
import { decodeHandshake, encodeHandshake, HANDSHAKE_BYTES } from "../lib/wire/handshake.ts";
import { formatUuid, parseUuid } from "../lib/wire/uuid.ts";
import { hex } from "./kit/byte_ends.ts";
import { thrownBy } from "./kit/errors.ts";

const UUID = "00112233-4455-6677-8899-aabbccddeeff";

/** A worked example for the wire format, section 2: channel 1. */
const EXAMPLE = hex(`
  11 22 33 44 00 00 00 01 00 11 22 33 44 55 66 77
  88 99 aa bb cc dd ee ff 01 00 00 00 00 00 00 00
  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00`);

function decode(change: (view: DataView) => void, channels = 4): number {
  const view = new DataView(EXAMPLE.slice().buffer);
  change(view);
  return decodeHandshake(view, parseUuid(UUID), channels);
}

test("encodeHandshake() writes the worked example byte for byte", () => {
  const bytes = new Uint8Array(HANDSHAKE_BYTES).fill(0xee);
  encodeHandshake(new DataView(bytes.buffer), parseUuid(UUID), 1);
  expect(bytes).toEqual(EXAMPLE);
});

test("decodeHandshake() returns the channel id", () => {
  expect(decode(() => {})).toBe(1);
  expect(decode((view) => view.setUint8(24, 254), 255)).toBe(254);
});

test("decodeHandshake() ignores the reserved bytes, as QEMU does", () => {
  expect(decode((view) => view.setUint8(25, 1))).toBe(1);
  expect(decode((view) => view.setUint8(63, 1))).toBe(1);
});

const broken: readonly [string, string, (view: DataView) => void][] = [
  ["magic", "magic is 0x11223345, must be 0x11223344", (view) => view.setUint8(3, 0x45)],
  ["version", "version is 2, must be 1", (view) => view.setUint32(4, 2)],
  [
    "uuid",
    `uuid is 00112233-4455-6677-8899-aabbccddee00, must be ${UUID}`,
    (view) => view.setUint8(23, 0),
  ],
  ["id", "channel id is 4, must be below 4", (view) => view.setUint8(24, 4)],
];

for (const [field, reason, change] of broken) {
  test(`decodeHandshake() rejects a wrong ${field}`, () => {
    const error = thrownBy(() => decode(change));
    expect(error).toBeInstanceOf(HandshakeError);
    expect(error.code).toBe(`ERR_MULTIFD_HANDSHAKE_${field.toUpperCase()}`);
    expect(error.message).toBe(`Cannot accept channel: ${reason}`);
  });
}

test("decodeHandshake() names the first field that is wrong", () => {
  const error = thrownBy(() =>
    decode((view) => {
      view.setUint32(4, 9);
      view.setUint8(24, 200);
    }),
  );
  expect(error.code).toBe("ERR_MULTIFD_HANDSHAKE_VERSION");
});

test("parseUuid() and formatUuid() keep the textual order of the bytes", () => {
  expect(formatUuid(parseUuid(UUID))).toBe(UUID);
  expect([...parseUuid(UUID)].slice(0, 3)).toEqual([0, 0x11, 0x22]);
  expect(parseUuid(undefined).every((byte) => byte === 0)).toBe(true);
  for (const text of [
    "",
    UUID.slice(1),
    UUID.replaceAll("-", ""),
    `${UUID}0`,
    UUID.replace("f", "g"),
  ]) {
    expect(() => parseUuid(text)).toThrow(TypeError);
  }
});
