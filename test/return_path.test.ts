import { expect, test } from "bun:test";
import { PeerError, StreamError } from "../mod.ts";
import {
  readReturnMessage,
  ReturnPathReader,
  sendPong,
  sendShut,
  sendSwitchoverAck,
} from "../lib/wire/return_path.ts";
import { hex, readerOf, written } from "./kit/byte_ends.ts";
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
    { type: 2, value: 0x42 },
    { type: 7, value: 0 },
    { type: 1, value: 1 },
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
    message: "Cannot complete: the destination reported failure 1",
  });
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
