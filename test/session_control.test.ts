import { expect, test } from "bun:test";
import { fstatSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { Arena } from "../ffi/arena.ts";
import { send, socket } from "../ffi/libc.ts";
import { AddressFamily, MessageFlag, SocketType } from "../ffi/linux.ts";
import { connectTo as connectEndpoint } from "../lib/net/endpoint.ts";
import {
  CHANNEL_DESCRIPTOR,
  MAIN_DESCRIPTOR,
  SessionControl,
} from "../lib/sync/session_control.ts";
import {
  CancelledError,
  ChannelError,
  CodecError,
  describeError,
  HandshakeError,
  MissingLibraryError,
  MultifdError,
  SystemError,
} from "../mod.ts";
import { TestThread, until } from "./kit/threads.ts";

/** A listening server and the connections it has accepted. */
async function server(): Promise<AsyncDisposable & { port: number; ended: number }> {
  const sockets: Socket[] = [];
  const listener = createServer((peer) => {
    sockets.push(peer);
    peer.on("end", () => void state.ended++);
    peer.on("error", () => {});
    peer.resume();
  });
  const listening = Promise.withResolvers<void>();
  listener.listen(0, "127.0.0.1", listening.resolve);
  await listening.promise;
  const address = listener.address();
  const state = {
    port: typeof address === "object" && address !== null ? address.port : 0,
    ended: 0,
    async [Symbol.asyncDispose]() {
      for (const peer of sockets) peer.destroy();
      listener.close();
      await Promise.resolve();
    },
  };
  return state;
}

function connectTo(port: number, control: SessionControl): number {
  return connectEndpoint({ kind: "tcp", host: "127.0.0.1", port }, 5000, control, () => {});
}

test("SessionControl.fail() keeps the first error with its class and fields", () => {
  const control = new SessionControl();
  control.phase = "transfer";
  const context = { side: "source", peer: "127.0.0.1:1", errno: "EPIPE" } as const;
  control.fail(
    new ChannelError("ERR_MULTIFD_CHANNEL", "Cannot send: EPIPE", { channel: 3 }),
    context,
  );
  control.fail(new CodecError("ERR_MULTIFD_CODEC", "a consequence"));
  control.finish();
  expect(control.stopping).toBe(true);
  expect(control.error).toBeInstanceOf(ChannelError);
  expect(control.error).toMatchObject({
    code: "ERR_MULTIFD_CHANNEL",
    message: "Cannot send: EPIPE",
    name: "ChannelError",
    channel: 3,
    phase: "transfer",
    ...context,
  });
  expect(() => control.throwIfFailed()).toThrow("Cannot send: EPIPE");
  // Another thread's object over the same buffer sees the same.
  expect(new SessionControl(control.buffer).error).toMatchObject({ channel: 3 });
});

test("SessionControl.finish() wins over failures that come later", () => {
  const control = new SessionControl();
  control.finish();
  control.fail(new ChannelError("ERR_MULTIFD_CHANNEL", "a consequence"));
  expect(control.error).toBeUndefined();
  control.throwIfFailed();
});

test("SessionControl.record() keeps an error and leaves the session running", () => {
  const control = new SessionControl();
  control.record(new Error("disk full"));
  expect(control.stopping).toBe(false);
  expect(control.error).toMatchObject({ code: "ERR_MULTIFD_INTERNAL", message: "disk full" });
});

test("SessionControl rebuilds every class of error from its code", () => {
  for (const [error, ErrorClass] of [
    [new HandshakeError("ERR_MULTIFD_HANDSHAKE_UUID", "m"), HandshakeError],
    [new MissingLibraryError("m"), MissingLibraryError],
    [new SystemError("m", { errno: "ENOENT" }), SystemError],
    [new MultifdError("ERR_MULTIFD_STOPPED", "m"), MultifdError],
    [new TypeError("m"), MultifdError],
    ["only text", MultifdError],
  ] as const) {
    const control = new SessionControl();
    control.fail(error);
    expect(control.error?.constructor).toBe(ErrorClass);
    if (error instanceof MultifdError) expect(control.error?.code).toBe(error.code);
  }
});

test("SessionControl.fail() shortens a message that does not fit", () => {
  const control = new SessionControl();
  control.fail(new ChannelError("ERR_MULTIFD_CHANNEL", "ä".repeat(10_000), { channel: 1 }));
  expect(control.error).toMatchObject({ code: "ERR_MULTIFD_CHANNEL", channel: 1 });
  expect(control.error?.message).toMatch(/^ä{400,600}$/);
});

test("SessionControl.fail() of many threads at once leaves one whole error, the same for all", async () => {
  for (let round = 0; round < 3; round++) {
    const control = new SessionControl();
    const gate = new Int32Array(new SharedArrayBuffer(8));
    const threads = [0, 1, 2, 3].map(
      (channel) =>
        new TestThread("failing_thread", { control: control.buffer, gate: gate.buffer, channel }),
    );
    try {
      // All stand at the same point before any of them fails.
      await until("all threads are there", () => Atomics.load(gate, 1) === 4);
      Atomics.store(gate, 0, 1);
      Atomics.notify(gate, 0);
      const seen = await Promise.all(threads.map((one) => one.result()));
      const { error } = control;
      expect(error?.message).toBe(`failure of ${error?.channel}`);
      // A thread that fails while the first is still writing sees no error yet, never half of one.
      for (const message of seen) expect([undefined, error?.message]).toContain(message as string);
    } finally {
      await Promise.all(threads.map((one) => one[Symbol.asyncDispose]()));
    }
  }
});

test("SessionControl shuts registered sockets down when it stops, and closes them when told", async () => {
  await using peer = await server();
  const control = new SessionControl();
  const main = connectTo(peer.port, control);
  const channel = connectTo(peer.port, control);
  control.registerDescriptor(MAIN_DESCRIPTOR, main);
  control.registerDescriptor(CHANNEL_DESCRIPTOR + 254, channel);
  expect(control.descriptorAt(MAIN_DESCRIPTOR)).toBe(main);
  control.finish();
  await until("both connections have ended", () => peer.ended === 2);
  // Shut down and still ours: the numbers cannot be used by anybody else yet.
  expect(fstatSync(main).isSocket()).toBe(true);
  control.closeDescriptors();
  control.closeDescriptors();
  expect(() => fstatSync(main)).toThrow();
  expect(() => fstatSync(channel)).toThrow();
  expect(control.descriptorAt(MAIN_DESCRIPTOR)).toBe(-1);
});

test("SessionControl.registerDescriptor() shuts a socket down that comes after the stop", async () => {
  await using peer = await server();
  const control = new SessionControl();
  const fd = connectTo(peer.port, control);
  control.finish();
  control.registerDescriptor(CHANNEL_DESCRIPTOR, fd);
  await until("the connection has ended", () => peer.ended > 0);
  control.closeDescriptors();
  expect(peer.ended).toBe(1);
});

test("SessionControl.fail() leaves main connections open while their thread uses them, finish() none", async () => {
  for (const ends of ["fail", "finish"] as const) {
    await using peer = await server();
    const control = new SessionControl();
    control.registerDescriptor(MAIN_DESCRIPTOR, connectTo(peer.port, control));
    control.registerDescriptor(CHANNEL_DESCRIPTOR, connectTo(peer.port, control));
    const byte = new Arena(1);
    const sent = control.speaking(() => {
      if (ends === "finish") control.finish();
      else control.fail(new ChannelError("ERR_MULTIFD_CHANNEL", "Cannot send: EPIPE"));
      const main = control.descriptorAt(MAIN_DESCRIPTOR);
      return [main, control.descriptorAt(CHANNEL_DESCRIPTOR)].map(
        (fd) => send(fd, byte.address, 1, MessageFlag.NOSIGNAL) > 0,
      );
    });
    expect(sent).toEqual([ends === "fail", false]);
    await until("both connections have ended", () => peer.ended === 2);
    control.closeDescriptors();
  }
});

test("SessionControl.closeDescriptor() closes one descriptor, once", () => {
  const control = new SessionControl();
  const fd = socket(AddressFamily.INET, SocketType.STREAM | SocketType.CLOEXEC, 0);
  control.registerDescriptor(MAIN_DESCRIPTOR, fd);
  control.closeDescriptor(MAIN_DESCRIPTOR);
  expect(() => fstatSync(fd)).toThrow();
  control.closeDescriptor(MAIN_DESCRIPTOR);
});

test("describeError() says what failed and where in one line, nothing twice", () => {
  const error = new ChannelError("ERR_MULTIFD_CHANNEL", "Cannot send: ECONNRESET", {
    side: "source",
    channel: 2,
    phase: "transfer",
    errno: "ECONNRESET",
    peer: "127.0.0.1:4444",
  });
  expect(describeError(error)).toBe(
    "Cannot send: ECONNRESET [ERR_MULTIFD_CHANNEL, source, phase transfer, channel 2, peer 127.0.0.1:4444]",
  );
  expect(describeError(new RangeError("Cannot x"))).toBe("Cannot x");
  expect(describeError("text")).toBe("text");
  const hostile = new MultifdError(
    "ERR_MULTIFD_DIGEST",
    "Cannot verify a\n\x1b[31m\x9b1m\u202eb\u2028c",
  );
  expect(describeError(hostile)).toBe("Cannot verify a [31m 1m b c [ERR_MULTIFD_DIGEST]");
});

test("SessionControl.supersede() puts its error in place of a failure, and of nothing else", () => {
  const refused = new MultifdError("ERR_MULTIFD_STREAM", "refused");
  const failure = new MultifdError("ERR_MULTIFD_CHANNEL", "a consequence");
  const cancel = new CancelledError("ERR_MULTIFD_CANCELLED", "enough");
  const outcome = (before: (control: SessionControl) => void): string | undefined => {
    const control = new SessionControl();
    before(control);
    control.supersede(refused);
    return new SessionControl(control.buffer).error?.code;
  };
  expect(outcome(() => {})).toBe("ERR_MULTIFD_STREAM");
  expect(outcome((control) => control.fail(failure))).toBe("ERR_MULTIFD_STREAM");
  expect(outcome((control) => control.fail(cancel))).toBe("ERR_MULTIFD_CANCELLED");
  expect(outcome((control) => control.finish())).toBeUndefined();
});
