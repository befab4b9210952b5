import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { Arena } from "../ffi/arena.ts";
import { close, recv, send, shutdown, socketpair, unwrap } from "../ffi/libc.ts";
import { tlsBye, tlsFree, tlsHandshake, tlsReceive, TlsResult, tlsSend } from "../ffi/libgnutls.ts";
import { tlsRenewKeys } from "../ffi/libgnutls_keys.ts";
import { AddressFamily, Shutdown, SocketType } from "../ffi/linux.ts";
import { IovecList } from "../lib/memory/iovec_list.ts";
import { parseEndpoint } from "../lib/net/endpoint.ts";
import { loadCredentials } from "../lib/net/tls_credentials.ts";
import { tlsConfig } from "../lib/net/tls_options.ts";
import { RecordReader, RecordResult, RecordWriter } from "../lib/net/tls_records.ts";
import { runCommand } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { pskFolder } from "./kit/tls_folders.ts";
import { bun } from "./setup/command.ts";

const BYTES = 100_000; // fits the sockets, so that one thread can be both sides

/** A client and a server whose handshake is done, on sockets that do not block. */
class SessionPair implements Disposable {
  readonly client: { readonly fd: number; readonly state: number };
  readonly server: { readonly fd: number; readonly state: number };
  readonly #folder = new TemporaryFolder();
  readonly #credentials;

  constructor() {
    const tls = { kind: "psk", dir: pskFolder(this.#folder.path, "keys") } as const;
    const config = tlsConfig(tls, parseEndpoint("127.0.0.1:0"))!;
    this.#credentials = [loadCredentials(config, "client"), loadCredentials(config, "server")];
    const fds = new Arena(8);
    const type = SocketType.STREAM | SocketType.NONBLOCK;
    unwrap("socketpair", socketpair(AddressFamily.UNIX, type, 0, fds.address));
    const [client, server] = this.#credentials.map(({ settings }, index) => ({
      fd: fds.u32[index]!,
      state: settings.makeSession(fds.u32[index]!),
    }));
    [this.client, this.server] = [client!, server!];
    for (let turn = 0, done = 0; done < 2; turn++) {
      expect(turn).toBeLessThan(50);
      done = 0;
      for (const { state } of [this.client, this.server]) if (tlsHandshake(state) === 0) done++;
    }
  }

  [Symbol.dispose](): void {
    for (const { fd, state } of [this.client, this.server]) {
      tlsFree(state);
      close(fd);
    }
    for (const credentials of this.#credentials) credentials[Symbol.dispose]();
    this.#folder[Symbol.dispose]();
  }
}

/** Memory in pieces of odd lengths, as a list. */
function scattered(content: Uint8Array): { readonly arena: Arena; readonly list: IovecList } {
  const arena = new Arena(content.byteLength);
  arena.u8.set(content);
  const list = new IovecList();
  for (let at = 0, piece = 1; at < content.byteLength; piece = (piece * 5 + 3) % 9001) {
    const bytes = Math.min(piece, content.byteLength - at);
    if (bytes > 0) list.append(arena.address + at, bytes);
    at += bytes;
  }
  return { arena, list };
}

/** Sends all of `list` by `writer`, renewing its key when that is due. */
function sendAll(writer: RecordWriter, fd: number, list: IovecList): number {
  let renewals = 0;
  while (list.bytes > 0) {
    if (writer.isWornOut) {
      expect(writer.renewKey()).toBe(0);
      renewals++;
    }
    writer.seal(list);
    while (writer.bytes > 0) writer.sent(unwrap("send", send(fd, writer.address, writer.bytes, 0)));
  }
  return renewals;
}

/** Receives `bytes` bytes into pieces; they, and what came instead of more. */
function receiveAll(reader: RecordReader, bytes: number): Uint8Array {
  const { arena, list } = scattered(new Uint8Array(bytes));
  for (let idle = 0; list.bytes > 0;) {
    const got = reader.receive(list);
    if (got === TlsResult.AGAIN) expect(++idle).toBeLessThan(50);
    else expect(got).toBeGreaterThan(0);
  }
  return arena.u8.slice(0, bytes);
}

function openReader(link: { readonly fd: number; readonly state: number }): RecordReader {
  const reader = RecordReader.open(link);
  expect(reader).toBeDefined();
  return reader!;
}

test("scattered bytes go through records of ours and come scattered, with new keys on the way", () => {
  using pair = new SessionPair();
  using writer = RecordWriter.open(pair.client.state, 3)!;
  using reader = openReader(pair.server);
  for (let round = 0; round < 3; round++) {
    const content = randomBytes(BYTES);
    const renewals = sendAll(writer, pair.client.fd, scattered(content).list);
    expect(renewals).toBeGreaterThanOrEqual(2);
    expect(Buffer.compare(receiveAll(reader, BYTES), content)).toBe(0);
  }
  writer.handBack();
  expect(tlsBye(pair.client.state)).toBe(0);
  expect(reader.receive(new IovecList())).toBe(0);
  expect(reader.receive(new IovecList())).toBe(0);
});

test("the library reads records of ours, and we read those of the library", () => {
  using pair = new SessionPair();
  using writer = RecordWriter.open(pair.server.state, 2)!;
  const content = randomBytes(BYTES);
  sendAll(writer, pair.server.fd, scattered(content).list);
  const arena = new Arena(BYTES);
  for (let done = 0; done < BYTES;) {
    const got = tlsReceive(pair.client.state, arena.address + done, BYTES - done);
    expect(got === TlsResult.AGAIN || got > 0).toBe(true);
    if (got > 0) done += got;
  }
  expect(Buffer.compare(arena.u8.slice(0, BYTES), content)).toBe(0);

  using other = new SessionPair();
  using reader = openReader(other.server);
  for (let at = 0, bytes = 1; at < BYTES; at += bytes) {
    bytes = Math.min(bytes * 3, BYTES - at, 16_384);
    if (at > 0 && bytes > 1000) expect(tlsRenewKeys(other.client.state)).toBe(0);
    expect(tlsSend(other.client.state, arena.address + at, bytes)).toBe(bytes);
  }
  expect(Buffer.compare(receiveAll(reader, BYTES), content)).toBe(0);
  tlsBye(other.client.state);
  expect(reader.receive(new IovecList())).toBe(0);
});

/** What a reader says of one record of 5000 bytes that was changed on its way. */
function fateOf(change: (record: Uint8Array) => Uint8Array): number {
  using pair = new SessionPair();
  using writer = RecordWriter.open(pair.client.state)!;
  using reader = openReader(pair.server);
  writer.seal(scattered(randomBytes(5000)).list);
  const sealed = new Arena(20_000);
  unwrap("send", send(pair.client.fd, writer.address, writer.bytes, 0));
  const bytes = unwrap("recv", recv(pair.server.fd, sealed.address, 20_000, 0));
  const changed = change(sealed.u8.slice(0, bytes));
  sealed.u8.set(changed);
  unwrap("send", send(pair.client.fd, sealed.address, changed.byteLength, 0));
  shutdown(pair.client.fd, Shutdown.WRITE);
  return reader.receive(scattered(new Uint8Array(6000)).list);
}

test("a record that was changed on its way is refused", () => {
  const set = (at: number, value: number) => (record: Uint8Array) =>
    record.with(at, record[at]! ^ value);
  expect(fateOf((record) => record)).toBe(5000);
  expect(fateOf(set(1000, 1))).toBe(RecordResult.DECRYPTION_FAILED);
  expect(fateOf(set(5021, 0x80))).toBe(RecordResult.DECRYPTION_FAILED); // of the tag
  expect(fateOf(set(2, 1))).toBe(RecordResult.DECRYPTION_FAILED); // of the header
  expect(fateOf(set(4, 1))).toBeLessThan(0);
  expect(fateOf(set(3, 0x80))).toBe(RecordResult.OVERFLOW);
  expect(fateOf(set(3, 0x20))).toBe(RecordResult.TRUNCATED); // the end comes within it
  expect(fateOf((record) => record.subarray(0, 3000))).toBe(RecordResult.TRUNCATED);
  expect(fateOf((record) => record.subarray(0, 0))).toBe(TlsResult.PREMATURE_TERMINATION);
  expect(fateOf(set(0, 23 ^ 22))).toBe(RecordResult.UNEXPECTED); // not as if it were encrypted
});

test("a record that comes twice, or behind one that was lost, is refused", () => {
  for (const order of [
    [0, 0],
    [1, 0],
  ]) {
    using pair = new SessionPair();
    using writer = RecordWriter.open(pair.client.state)!;
    using reader = openReader(pair.server);
    const { list } = scattered(randomBytes(32_768));
    writer.seal(list);
    const record = writer.bytes / 2;
    for (const index of order) {
      unwrap("send", send(pair.client.fd, writer.address + index * record, record, 0));
    }
    const room = scattered(new Uint8Array(32_768)).list;
    const results = [reader.receive(room), reader.receive(room)];
    expect(results).toContain(RecordResult.DECRYPTION_FAILED);
  }
});

test("without libcrypto GnuTLS does it all", async () => {
  const env = { MULTIFD_LIBCRYPTO: "/nowhere/libcrypto.so.3" };
  const command = [bun, "test", "test/tls.test.ts", "-t", "a shared key encrypts"];
  const { status, stderr } = await runCommand(command, { env });
  expect(stderr).toContain("1 pass");
  expect(status).toBe(0);
});
