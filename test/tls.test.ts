import { expect, spyOn, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { chmodSync } from "node:fs";
import { connect, listen, RamBlock, relay, type SessionWarning, type TlsOptions } from "../mod.ts";
import { TlsCredentials, TlsSettings } from "../ffi/libgnutls.ts";
import { rejectionOf } from "./kit/errors.ts";
import { testTimeouts } from "./kit/limits.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { expectReleased, resourcesNow } from "./kit/resources.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { pskFolder, TestAuthority } from "./kit/tls_folders.ts";
import { transfer } from "./kit/transfer.ts";

const PAGE = 4096;
const block = RamBlock.allocate("pc.ram", 1000 * PAGE);
fillBlock(block, 7);
block.view(500 * PAGE, 300 * PAGE).set(randomBytes(300 * PAGE)); // runs longer than a record

async function move(sender: TlsOptions, receiver: TlsOptions, compression: "none" | "zstd") {
  const { blocks, sent, received } = await transfer({
    both: { channels: 3, compression },
    sender: { blocks: [block], tls: sender },
    receiver: { tls: receiver },
  });
  const suite = "TLS_AES_128_GCM_SHA256";
  const agreed = { protocol: "TLS 1.3", suite, library: "libgnutls" } as const;
  expect([sent.tls, received.tls]).toEqual([agreed, agreed]);
  return blocks.flatMap((copy) => differingPages(block, copy));
}

/** How a sender fails, and what a receiver tells at once, which goes on waiting. */
async function refusal(sender: TlsOptions | undefined, receiver: TlsOptions | undefined) {
  const timeouts = { ...testTimeouts, connectMs: 4000 };
  const told = Promise.withResolvers<SessionWarning>();
  await using destination = await listen({
    endpoint: "127.0.0.1:0",
    tls: receiver,
    timeouts,
    onWarning: told.resolve,
  });
  const received = rejectionOf(destination.complete());
  const options = { endpoint: destination.endpoint, blocks: [block], tls: sender, timeouts };
  const sent = await rejectionOf(connect(options).then((source) => source.send()));
  expect(sent.side).toBe("source");
  const warning = await told.promise;
  expect(warning.code).toBe("WARN_MULTIFD_TLS_REFUSED");
  expect(destination.blocks).toEqual([]);
  await destination[Symbol.asyncDispose]();
  expect((await received).code).toBe("ERR_MULTIFD_STOPPED");
  return { sent, received: warning };
}

/** What a mistake of the caller is told with. */
async function failureOf(call: Promise<unknown>): Promise<Error> {
  return call.then(
    () => new Error("Nothing was thrown"),
    (error: unknown) => error as Error,
  );
}

/** Texts and bytes that a message copies; what threads share is not in it. */
function copiedBy(message: unknown): string[] {
  if (typeof message === "string") return [message];
  if (message instanceof SharedArrayBuffer) return [];
  if (ArrayBuffer.isView(message)) {
    if (message.buffer instanceof SharedArrayBuffer) return [];
    return [Buffer.from(message.buffer).toString("latin1")];
  }
  if (typeof message !== "object" || message === null) return [];
  return Object.entries(message).flatMap(([name, value]) => [name, ...copiedBy(value)]);
}

test("a shared key encrypts a transfer, and nothing is left of it", async () => {
  using folder = new TemporaryFolder();
  const before = resourcesNow();
  const tls = { kind: "psk", dir: pskFolder(folder.path, "keys") } as const;
  expect(await move(tls, tls, "none")).toEqual([]);
  expect(await move(tls, tls, "zstd")).toEqual([]);
  await expectReleased(before);
});

test("keys without a file encrypt a transfer, and nothing is left of them", async () => {
  const before = resourcesNow();
  const keys = ["qemu", "ann"].map((user) => `${user}:${randomBytes(32).toString("hex")}\n`);
  const tls = { kind: "psk", keys: keys.join("") } as const;
  expect(await move({ ...tls, username: "ann" }, tls, "none")).toEqual([]);
  await expectReleased(before);
});

test("no message to a thread has a key in it", async () => {
  const key = randomBytes(32).toString("hex");
  const copied: string[] = [];
  const spy = spyOn(Worker.prototype, "postMessage"); // calls through
  try {
    const tls = { kind: "psk", keys: `ann:${key}\n`, username: "ann" } as const;
    expect(await move(tls, tls, "none")).toEqual([]);
    copied.push(...spy.mock.calls.flatMap(([message]) => copiedBy(message)));
  } finally {
    spy.mockRestore();
  }
  expect(copied).toContain("ann"); // the options were among them
  expect(copied.join("\n")).not.toContain(key);
});

test("a session that cannot be set up is released", () => {
  using credentials = TlsCredentials.pskClient("qemu", Buffer.from("ab".repeat(32)));
  const settings = new TlsSettings("client", credentials, "NO-SUCH-PRIORITY", undefined);
  const fail = (): void => expect(() => settings.makeSession(0)).toThrow("priorities");
  fail();
  const before = process.memoryUsage.rss();
  for (let count = 0; count < 4000; count++) fail(); // 15 KiB each
  expect(process.memoryUsage.rss() - before).toBeLessThan(30 * 1_048_576);
});

test("keys that are none are a mistake of the caller, told without them", async () => {
  const secret = "0123456789abcdef";
  const wrong: [object, string][] = [
    [{ keys: `qemu:${secret}\nann ${secret}\n` }, "line 2 of keys must be a name"],
    [{ keys: `qemu:${secret}0` }, "line 1 of keys"],
    [{ keys: "" }, "line 1 of keys"],
    [{ keys: `qemu:${secret}`, dir: "/etc" }, "must have dir or keys, not both"],
    [{ keys: `qemu:${"ab".repeat(600_000)}` }, "must have at most 1048576"],
    [{}, "dir must name the folder"],
  ];
  for (const [options, words] of wrong) {
    const tls = { kind: "psk", ...options } as const;
    const { message } = await failureOf(listen({ endpoint: "127.0.0.1:0", tls }));
    expect(message).toContain(words);
    expect(message).not.toContain(secret);
  }
  const tls = { kind: "psk", keys: `qemu:${secret}`, username: "ann" } as const;
  const unknown = await rejectionOf(connect({ endpoint: "127.0.0.1:9", blocks: [block], tls }));
  expect(unknown.message).toContain('tls.keys has no key of "ann"');
});

test("certificates encrypt a transfer, with and without one of the sender", async () => {
  using folder = new TemporaryFolder();
  const authority = new TestAuthority(folder.path, "ca");
  const server = authority.folder("server", "server", {});
  const client = authority.folder("client", "client", { commonName: "source" });
  const bare = authority.folder("bare", "client");
  const [sender, receiver] = [
    { kind: "x509", dir: client },
    { kind: "x509", dir: server },
  ] as const;
  expect(await move(sender, { ...receiver, allow: "CN=source" }, "none")).toEqual([]);
  expect(await move({ ...sender, dir: bare }, { ...receiver, verifyPeer: false }, "zstd")).toEqual(
    [],
  );
});

test("wrong shared keys fail on both sides, each with a reason", async () => {
  using folder = new TemporaryFolder();
  const one = { kind: "psk", dir: pskFolder(folder.path, "one", ["qemu", "other"]) } as const;
  const two = { kind: "psk", dir: pskFolder(folder.path, "two") } as const;
  const [wrongKey, unknown] = await Promise.all([
    refusal(one, two),
    refusal({ ...one, username: "other" }, two),
  ]);
  expect(wrongKey.sent.code).toBe("ERR_MULTIFD_TLS_HANDSHAKE");
  expect(wrongKey.received.message).toContain("the key of the sender is another than here");
  expect(unknown.sent.code).toBe("ERR_MULTIFD_TLS_HANDSHAKE");
  expect(unknown.received.message).toContain("its user is not known here");
  const missing = await rejectionOf(
    connect({ endpoint: "127.0.0.1:9", blocks: [block], tls: { ...two, username: "nobody" } }),
  );
  expect(missing.code).toBe("ERR_MULTIFD_TLS_CREDENTIALS");
  expect(missing.message).toContain('keys.psk has no key of "nobody"');
});

test("wrong certificates fail before memory is sent, each with a reason", async () => {
  using folder = new TemporaryFolder();
  const [ours, theirs] = ["ours", "theirs"].map((name) => new TestAuthority(folder.path, name));
  const server = { kind: "x509", dir: ours!.folder("s", "server", {}) } as const;
  const client = { kind: "x509", dir: ours!.folder("c", "client", { commonName: "me" }) } as const;
  const foreign = { kind: "x509", dir: theirs!.folder("f", "client", {}) } as const;
  const bare = { kind: "x509", dir: ours!.folder("b", "client") } as const;
  const past = ours!.folder("e", "server", { days: -1 });
  const old = { kind: "x509", dir: ours!.folder("o", "client", { days: -1 }) } as const;
  const [host, authority, none, named, purpose, expired] = await Promise.all([
    refusal({ ...client, hostname: "elsewhere" }, server),
    refusal(foreign, server),
    refusal(bare, server),
    refusal(client, { ...server, allow: ["CN=you"] }),
    refusal(client, { ...server, dir: past }),
    refusal(old, server),
  ]);
  expect(host.sent.message).toContain("it is not that of the host");
  expect(authority.sent.message).toContain("its authority is not known here");
  expect(none.sent.message).toContain("this side has none that it takes");
  expect(none.received.message).toMatch(/shows no certificate|ended the connection/);
  expect(named.received.message).toContain("that of CN=me, must be one of CN=you");
  expect(named.sent.message).toContain("the receiver refused it: Access was denied");
  expect(expired.received.message).toContain(
    "the sender's certificate is refused here: it has expired",
  );
  expect(expired.sent.message).toContain("the receiver refused it: ");
  expect(purpose.sent.message).toContain("it has expired");
  const gone = await rejectionOf(
    listen({ endpoint: "127.0.0.1:0", tls: { kind: "x509", dir: folder.path } }),
  );
  expect(gone).toMatchObject({ code: "ERR_MULTIFD_TLS_CREDENTIALS" });
  expect(gone.message).toContain("ca-cert.pem cannot be read (ENOENT)");
});

test("a key file that others may read is told of, and used", async () => {
  using folder = new TemporaryFolder();
  const [dir, authority] = [pskFolder(folder.path, "k"), new TestAuthority(folder.path, "ca")];
  const server = authority.folder("server", "server", {});
  for (const [tls, file, mode] of [
    [{ kind: "psk", dir }, `${dir}/keys.psk`, 0o604],
    [{ kind: "x509", dir: server }, `${server}/server-key.pem`, 0o660],
  ] as const) {
    const warnings: SessionWarning[] = [];
    const listening = async () => {
      const onWarning = (warning: SessionWarning): unknown => warnings.push(warning);
      await using receiver = await listen({ endpoint: "127.0.0.1:0", tls, onWarning });
      expect(receiver.endpoint).not.toBe("");
    };
    await listening();
    expect(warnings).toEqual([]);
    chmodSync(file, mode);
    await listening();
    expect(warnings.map(({ code }) => code)).toEqual(["WARN_MULTIFD_TLS_KEY_FILE"]);
    expect(warnings[0]!.message).toContain(`${file} has mode 0${mode.toString(8)}: others may`);
  }
});

test("a side without TLS and one with it do not come together, and say so", async () => {
  using folder = new TemporaryFolder();
  const tls = { kind: "psk", dir: pskFolder(folder.path, "keys") } as const;
  const [plainReceiver, plainSender] = await Promise.all([
    refusal(tls, undefined),
    refusal(undefined, tls),
  ]);
  expect(plainReceiver.sent.message).toContain("it may be without TLS");
  expect(plainReceiver.received.message).toContain("began with TLS, which is not on here");
  expect(plainSender.received.message).toContain("does not speak TLS");
});

test("a relay has credentials of its own on each end", async () => {
  using folder = new TemporaryFolder();
  const [one, two] = ["one", "two"].map((name) => pskFolder(folder.path, name));
  const tls = (dir: string | undefined) => ({ kind: "psk", dir: dir! }) as const;
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    tls: tls(two),
    timeouts: testTimeouts,
    channels: 2,
  });
  const received = receiver.complete();
  await using relaying = await relay({
    listen: { endpoint: "127.0.0.1:0", tls: tls(one) },
    connect: { endpoint: receiver.endpoint, tls: tls(two), channels: 2 },
    timeouts: testTimeouts,
  });
  const relayed = relaying.complete();
  await using sender = await connect({
    endpoint: relaying.endpoint,
    tls: tls(one),
    blocks: [block],
    timeouts: testTimeouts,
  });
  await sender.send();
  await Promise.all([sender.complete(), relayed, received]);
  expect(receiver.blocks.flatMap((copy) => differingPages(block, copy))).toEqual([]);
});
