import { expect, test } from "bun:test";
import { PeerError, StreamError } from "../mod.ts";
import { ByteReader } from "../lib/wire/byte_reader.ts";
import {
  readReturnMessage,
  ReturnPathReader,
  sendPong,
  sendReturnMessage,
  sendShut,
  sendSwitchoverAck,
} from "../lib/wire/return_path.ts";
import { hex, MemorySource, readerOf, written } from "./kit/byte_ends.ts";
import { thrownBy } from "./kit/errors.ts";

test("sendPong(), sendSwitchoverAck() and sendShut() write the documented messages", () => {
  const bytes = written((out) => {
    sendPong(out, 0x42);
    sendSwitchoverAck(out);
    sendShut(out, 0);
  });
  expect(bytes).toEqual(hex("0002 0004 00000042  0007 0000  0001 0004 00000000"));
});

test("readReturnMessage() reads each message with its value", () => {
  const reader = readerOf(hex("0002 0004 00000042  0007 0000  0001 0004 00000001"));
  expect([1, 2, 3].map(() => readReturnMessage(reader))).toEqual([
    { name: "pong", content: 0x42 },
    { name: "switchoverAck", content: undefined },
    { name: "shut", content: 1 },
  ]);
});

test("awaitShut() passes over other messages and returns at success", () => {
  const reader = readerOf(hex("0002 0004 00000001  0007 0000  0001 0004 00000000"));
  new ReturnPathReader(reader).awaitShut();
  expect(reader.position).toBe(20);
});

test("awaitShut() throws when the destination reports a failure", () => {
  const error = thrownBy(() =>
    new ReturnPathReader(readerOf(hex("0001 0004 00000001"))).awaitShut(),
  );
  expect(error).toBeInstanceOf(PeerError);
  expect(error).toMatchObject({
    code: "ERR_MULTIFD_PEER",
  });
  expect(error.message).toMatch(/^Cannot complete: the destination reported failure 1; the usual/);
});

test("readReturnMessage() rejects unknown types and wrong lengths", () => {
  for (const bytes of [
    "0000 0000",
    "0003 0000",
    "0004 000c",
    "ffff 0000",
    "0001 0000",
    "0001 0005",
    "0002 0008",
    "0007 0004",
    "0001 ffff",
  ]) {
    const error = thrownBy(() => readReturnMessage(readerOf(hex(bytes))));
    expect(error).toBeInstanceOf(StreamError);
    expect(error.code).toBe("ERR_MULTIFD_STREAM_RETURN_PATH");
  }
});

test("awaitShut() ends with the connection when no SHUT comes", () => {
  for (const bytes of ["", "0002 0004 00000001", "0001 0004 0000"]) {
    expect(thrownBy(() => new ReturnPathReader(readerOf(hex(bytes))).awaitShut()).code).toBe(
      "ERR_MULTIFD_CHANNEL_ENDED",
    );
  }
});

test("ReturnPathReader remembers an acknowledgement that comes before the PONG", () => {
  const path = new ReturnPathReader(
    readerOf(hex("0007 0000  0002 0004 00000001  0001 0004 00000000")),
  );
  path.awaitPong(() => true);
  path.awaitSwitchoverAck();
  expect(() => path.awaitShut()).not.toThrow();
});

test("awaitSwitchoverAck() throws when the destination ends the migration instead", () => {
  for (const value of [0, 1]) {
    const path = new ReturnPathReader(readerOf(hex(`0001 0004 0000000${value}`)));
    const error = thrownBy(() => path.awaitSwitchoverAck());
    expect(error).toBeInstanceOf(PeerError);
    expect(error.message).toMatch(/^Cannot switch over: the destination /);
  }
});

test("requireOpen() reads what is here and throws at any SHUT", () => {
  const error = thrownBy(() =>
    new ReturnPathReader(readerOf(hex("0002 0004 00000001  0001 0004 00000000"))).requireOpen(),
  );
  expect(error).toBeInstanceOf(PeerError);
  expect(error.message).toBe(
    "Cannot send: the destination ended the migration before all of it was sent",
  );
});

test("requireEnd() rejects whatever follows SHUT, and takes the end of the connection for one", () => {
  for (const [rest, code] of [
    ["", undefined],
    ["00", "ERR_MULTIFD_STREAM_RETURN_PATH"],
    ["0001 0004 00000000", "ERR_MULTIFD_STREAM_RETURN_PATH"],
  ] as const) {
    const path = new ReturnPathReader(readerOf(hex(`0001 0004 00000000 ${rest}`)));
    path.awaitShut();
    if (code === undefined) path.requireEnd();
    else expect(thrownBy(() => path.requireEnd()).code).toBe(code);
  }
});

test("ReturnPathReader rejects an answer or an acknowledgement that comes twice", () => {
  for (const message of ["0002 0004 00000001", "0007 0000"]) {
    const path = new ReturnPathReader(readerOf(hex(`${message} ${message} 0001 0004 00000000`)));
    expect(thrownBy(() => path.awaitShut()).code).toBe("ERR_MULTIFD_STREAM_RETURN_PATH");
  }
});

test("requireOpen() waits for no message of which only a part is here", () => {
  // Nothing more comes within the wait, and nothing is the end either.
  for (const part of ["0001", "0001 0004 0000", "6d66 0190 03"]) {
    const bytes = hex(`0002 0004 00000001 ${part}`);
    const source = new MemorySource(bytes);
    let left = bytes.byteLength;
    const path = new ReturnPathReader(
      new ByteReader({
        isReadable: () => left > 0,
        receiveSome: (address, bytesMin, bytesMax, atBoundary) => {
          const got = source.receiveSome(address, bytesMin, bytesMax, atBoundary);
          left -= got;
          return got;
        },
      }),
    );
    expect(() => path.requireOpen()).not.toThrow();
    expect(left).toBe(0);
  }
});

test("a failure is written and read again, within its limits", () => {
  for (const failure of [
    {
      code: "ERR_MULTIFD_PACKET_METHOD",
      message: "Cannot decode",
      phase: "transfer",
      channel: 254,
    },
    { code: "ERR_MULTIFD_DIGEST", message: "", phase: undefined, channel: undefined },
  ]) {
    const bytes = written((out) => sendReturnMessage(out, { name: "failure", content: failure }));
    expect(readReturnMessage(readerOf(bytes))).toEqual({ name: "failure", content: failure });
    expect(bytes.byteLength).toBeLessThanOrEqual(516);
  }
  // Whole characters only, and no code of a program's own.
  const long = { code: "EACCES: x", message: "ä".repeat(300), phase: "X" };
  const bytes = written((out) => sendReturnMessage(out, { name: "failure", content: long }));
  expect(readReturnMessage(readerOf(bytes)).content).toEqual({
    code: "ERR_MULTIFD_INTERNAL",
    message: "ä".repeat(200),
    phase: undefined,
    channel: undefined,
  });
});

test("readReturnMessage() rejects a malformed failure", () => {
  const good = "05 4552525f58 00 ffff 0001 61";
  for (const content of [
    good.slice(0, -3), // its message ends early
    `${good} 00`,
    "06 6572725f5800 00 ffff 0000", // no name
    "41 4552525f58 00 ffff 0001 61", // longer than a code may be
    "05 4552525f58 01 41 ffff 0000", // a phase in capital letters
    "05 4552525f58 00 00ff 0000", // more channels than there can be
    "05 4552525f58 00 ffff 0191",
  ]) {
    const length = hex(content).byteLength.toString(16).padStart(4, "0");
    const error = thrownBy(() => readReturnMessage(readerOf(hex(`6d66 ${length} ${content}`))));
    expect(error.code).toBe("ERR_MULTIFD_STREAM_RETURN_PATH");
  }
});
