import { beforeAll, expect, test } from "bun:test";
import { createServer, type Socket } from "node:net";
import { close } from "../ffi/libc.ts";
import { listenAt } from "../lib/net/endpoint.ts";
import {
  connect,
  formatEndpoint,
  parseEndpoint,
  RamBlock,
  type ConnectOptions,
  type MultifdError,
  type Sender,
} from "../mod.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages, fillBlock, fillPage } from "./kit/page_content.ts";
import { PONG, RawDestination, shut, type RawDestinationOptions } from "./kit/raw_destination.ts";
import { expectReleased, resourcesNow } from "./kit/resources.ts";
import { transfer } from "./kit/transfer.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

/** For failures that need no limit: a busy machine must not run into one before. */
const timeouts = { connectMs: 15_000, idleMs: 15_000, stallMs: 15_000 } as const;
/** For those that are found by a limit. */
const hasty = { ...timeouts, stallMs: 1000 } as const;

/** More than any socket buffers, none of it compressible. */
const large = RamBlock.allocate("pc.ram", 16 * 1_048_576);
for (let page = 0; page < large.pages; page++)
  fillPage(large.view(page * 4096, 4096), "random", page);

async function expectTransfer(): Promise<void> {
  const block = RamBlock.allocate("pc.ram", 200 * 4096);
  fillBlock(block, 5);
  const { blocks } = await transfer({ both: { compression: "zlib" }, sender: { blocks: [block] } });
  expect(differingPages(block, blocks[0]!)).toEqual([]);
}

beforeAll(async () => {
  await expectTransfer();
});

async function sendAll(sender: Sender): Promise<void> {
  await sender.send();
  await sender.complete();
}

/** Lets a sender talk to a raw destination; the error it ends with, when nothing is left of it. */
async function failureOf(
  destination: RawDestinationOptions,
  options: Partial<ConnectOptions> = {},
): Promise<MultifdError> {
  const before = resourcesNow();
  let error: MultifdError | undefined;
  {
    await using peer = await RawDestination.listen(destination);
    error = await rejectionOf(
      (async () => {
        await using sender = await connect({
          endpoint: peer.endpoint,
          channels: 2,
          blocks: [large],
          timeouts,
          ...options,
        });
        await sendAll(sender);
      })(),
    );
    expect(error.peer).toBe(peer.endpoint);
  }
  await expectReleased(before);
  expect(error.side).toBe("source");
  expect(error.message).toMatch(/^Cannot [a-z]+/);
  return error;
}

test("a raw destination that keeps to the protocol is enough for a sender", async () => {
  await using peer = await RawDestination.listen({ onEnd: (main) => main.write(shut(0)) });
  await using sender = await connect({ endpoint: peer.endpoint, blocks: [large], timeouts });
  await sender.send();
  const { normalPages } = await sender.complete();
  expect(normalPages).toBe(large.pages);
});

/** Does something with the main connection when its first bytes arrive. */
function onFirst(step: (main: Socket) => unknown): NonNullable<RawDestinationOptions["onData"]> {
  return (kind, bytes, socket, piece) => {
    if (kind === "main" && bytes === piece.byteLength) step(socket);
  };
}

/** Confirms in the middle of the first round, when nothing has ended yet. */
function confirmsEarly(): RawDestinationOptions {
  let main: Socket | undefined;
  return {
    onData: (kind, bytes, socket, piece) => {
      if (kind === "main") main ??= socket;
      else if (bytes > 1_000_000 && bytes - piece.byteLength <= 1_000_000) main?.write(shut(0));
    },
  };
}

const cases: readonly [
  name: string,
  code: RegExp,
  destination: RawDestinationOptions,
  options?: Partial<ConnectOptions>,
][] = [
  [
    "the destination never answers",
    /^ERR_MULTIFD_TIMEOUT_ANSWER$/,
    { pong: false },
    { timeouts: { ...timeouts, connectMs: 1000 } },
  ],
  [
    "nothing is ever read",
    /^ERR_MULTIFD_TIMEOUT/,
    { reading: false },
    { timeouts: { ...hasty, connectMs: 1000 } },
  ],
  [
    "a channel is not read any more",
    /^ERR_MULTIFD_TIMEOUT_STALL$/,
    {
      onData: (kind, bytes, socket) =>
        void (kind === "channel" && bytes > 100_000 && socket.pause()),
    },
  ],
  [
    "the main connection ends in the setup",
    /^ERR_MULTIFD_(CHANNEL|STREAM)/,
    { pong: false, onData: (kind, _, socket) => void (kind === "main" && socket.destroy()) },
  ],
  [
    "a channel ends in the middle",
    /^ERR_MULTIFD_CHANNEL$/,
    {
      onData: (kind, bytes, socket) =>
        void (kind === "channel" && bytes > 1_000_000 && socket.destroy()),
    },
  ],
  [
    "a channel is reset in the middle",
    /^ERR_MULTIFD_CHANNEL$/,
    {
      onData: (kind, bytes, socket) =>
        void (kind === "channel" && bytes > 1_000_000 && socket.resetAndDestroy()),
    },
  ],
  [
    "the destination reports a failure at the end",
    /^ERR_MULTIFD_PEER$/,
    { onEnd: (main) => main.write(shut(1)) },
  ],
  [
    "the destination says nothing at the end",
    /^ERR_MULTIFD_TIMEOUT/,
    {},
    { timeouts: { ...hasty, idleMs: 2000 } },
  ],
  [
    "the destination ends before it confirms",
    /^ERR_MULTIFD_CHANNEL_ENDED$/,
    { onEnd: (main) => main.end() },
  ],
  [
    "the destination ends in the middle of its confirmation",
    /^ERR_MULTIFD_CHANNEL_ENDED$/,
    { onEnd: (main) => main.end(shut(0).subarray(0, 5)) },
  ],
  [
    "the destination answers with something else",
    /^ERR_MULTIFD_STREAM_RETURN_PATH$/,
    {
      pong: false,
      onData: (kind, _, socket) => void (kind === "main" && socket.write("HTTP/1.1 400\r\n\r\n")),
    },
  ],
  [
    "the destination ends the migration before it has everything",
    /^ERR_MULTIFD_PEER$/,
    { pong: false, onData: (kind, _, socket) => void (kind === "main" && socket.write(shut(0))) },
  ],
  [
    "the destination confirms as soon as it has answered",
    /^ERR_MULTIFD_PEER$/,
    { pong: false, onData: onFirst((main) => main.write(Buffer.concat([PONG, shut(0)]))) },
  ],
  ["the destination confirms when pages arrive", /^ERR_MULTIFD_PEER$/, confirmsEarly()],
  [
    "the destination takes its confirmation back",
    /^ERR_MULTIFD_STREAM_RETURN_PATH$/,
    { onEnd: (main) => main.write(Buffer.concat([shut(0), shut(1)])) },
  ],
  [
    "the destination goes on with half a message after its confirmation",
    /^ERR_MULTIFD_STREAM_RETURN_PATH$/,
    { onEnd: (main) => main.write(Buffer.concat([shut(0), PONG.subarray(0, 3)])) },
  ],
  [
    "the destination answers twice",
    /^ERR_MULTIFD_STREAM_RETURN_PATH$/,
    { pong: false, onData: onFirst((main) => main.write(Buffer.concat([PONG, PONG]))) },
  ],
];

for (const [name, code, destination, options] of cases) {
  test(`Sender rejects when ${name}`, async () => {
    const limits = code.source.includes("TIMEOUT") ? { timeouts: hasty } : {};
    const error = await failureOf(destination, { ...limits, ...options });
    expect(error.code).toMatch(code);
  });
}

test("connect() rejects when nobody listens, with the reason and the address", async () => {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  await new Promise((closed) => {
    server.close(closed);
  });
  const before = resourcesNow();
  const error = await rejectionOf(
    connect({ endpoint: `127.0.0.1:${port}`, blocks: [large], timeouts }),
  );
  expect(error).toMatchObject({
    code: "ERR_MULTIFD_SYSTEM",
    errno: "ECONNREFUSED",
    side: "source",
    phase: "connect",
    message: `Cannot connect to 127.0.0.1:${port}: ECONNREFUSED`,
  });
  using folder = new TemporaryFolder();
  const missing = await rejectionOf(
    connect({ endpoint: `unix:${folder.path}/socket`, blocks: [large], timeouts }),
  );
  expect(missing).toMatchObject({ code: "ERR_MULTIFD_SYSTEM", errno: "ENOENT" });
  await expectReleased(before);
});

/** A listener that never accepts, with room for one connection, so that the next one has to wait. */
function fullListener(endpoint: string): Disposable & { readonly endpoint: string } {
  const listener = listenAt(parseEndpoint(endpoint), 0);
  return {
    endpoint: formatEndpoint(listener.endpoint),
    [Symbol.dispose]: () => {
      close(listener.fd);
      listener.removeName();
    },
  };
}

test("connect() rejects when a listener lets nobody in within the limit", async () => {
  using folder = new TemporaryFolder();
  for (const endpoint of ["127.0.0.1:0", `unix:${folder.path}/socket`]) {
    const before = resourcesNow();
    {
      using full = fullListener(endpoint);
      const error = await rejectionOf(
        connect({
          endpoint: full.endpoint,
          channels: 4,
          blocks: [large],
          timeouts: { ...timeouts, connectMs: 600 },
        }),
      );
      expect(error).toMatchObject({ side: "source", phase: "connect", peer: full.endpoint });
      expect(error.code).toStartWith("ERR_MULTIFD_TIMEOUT");
    }
    await expectReleased(before);
  }
});

test("connect() rejects when the host has no address", async () => {
  const error = await rejectionOf(
    connect({ endpoint: "no-such-host.invalid:4444", blocks: [large], timeouts }),
  );
  expect(error.code).toMatch(/^ERR_MULTIFD_(SYSTEM|TIMEOUT)$/);
  expect(error.message).toStartWith("Cannot resolve no-such-host.invalid: ");
});

test("Sender calls after a failure reject with the first error, and dispose works twice", async () => {
  await using peer = await RawDestination.listen({
    onData: (kind, bytes, socket) =>
      void (kind === "channel" && bytes > 500_000 && socket.destroy()),
  });
  const sender = await connect({ endpoint: peer.endpoint, blocks: [large], timeouts });
  const first = await rejectionOf(sender.send());
  for (const call of [
    () => sender.send(),
    () => sender.sync(),
    () => sender.queueRange(large, 0, 1),
    () => sender.complete(),
  ]) {
    expect(await rejectionOf(call())).toMatchObject({ code: first.code, message: first.message });
  }
  expect(sender.statistics().pageBytes).toBeGreaterThan(0);
  await Promise.all([sender[Symbol.asyncDispose](), sender[Symbol.asyncDispose]()]);
  expect((await rejectionOf(sender.send())).code).toBe(first.code);
});

test("Sender calls after dispose reject, and nothing more is sent", async () => {
  await using peer = await RawDestination.listen();
  const sender = await connect({ endpoint: peer.endpoint, blocks: [large], timeouts });
  await sender[Symbol.asyncDispose]();
  expect((await rejectionOf(sender.send())).code).toBe("ERR_MULTIFD_STOPPED");
});

test("a sender that is disposed in the middle fails its receiver", async () => {
  const { listen } = await import("../mod.ts");
  const before = resourcesNow();
  {
    await using receiver = await listen({ endpoint: "127.0.0.1:0", timeouts });
    const failure = rejectionOf(receiver.complete());
    {
      await using sender = await connect({
        endpoint: receiver.endpoint,
        blocks: [large],
        timeouts,
      });
      sender.send().catch(() => {});
      await receiver.announced();
    }
    expect((await failure).code).toMatch(/^ERR_MULTIFD_(CHANNEL|TIMEOUT)/);
  }
  await expectReleased(before);
});

test("a receiver that is disposed in the middle fails its sender", async () => {
  const { listen } = await import("../mod.ts");
  const before = resourcesNow();
  {
    const receiver = await listen({ endpoint: "127.0.0.1:0", timeouts });
    await using sender = await connect({ endpoint: receiver.endpoint, blocks: [large], timeouts });
    const failure = rejectionOf(sendAll(sender));
    await receiver.announced();
    await receiver[Symbol.asyncDispose]();
    expect((await failure).code).toMatch(/^ERR_MULTIFD_(CHANNEL|PEER|TIMEOUT)/);
  }
  await expectReleased(before);
});

test("a process that has seen all these failures runs the next transfer", expectTransfer);
