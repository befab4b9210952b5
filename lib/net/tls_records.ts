/**
 * Records of TLS 1.3 as they are on the wire, made and opened beside the library that did the
 * handshake: it would copy each page before it encrypts and after it decrypts it, and call the kernel
 * for each record. Here scattered pages are encrypted into a buffer of many records, and decrypted from
 * one to where they belong.
 *
 * The library keeps what is not data: key updates, alerts, padding. Such a record goes to it whole, and
 * both tell each other how many records there were.
 *
 * One thread, one direction.
 *
 * @module
 */
import { Aead, AEAD_NONCE_BYTES, AEAD_TAG_BYTES } from "../../ffi/libcrypto.ts";
import { Arena } from "../../ffi/arena.ts";
import { close, copyMemory, Errno, recv, socketpair, unwrap, writeFd } from "../../ffi/libc.ts";
import { tlsReceive, TlsResult } from "../../ffi/libgnutls.ts";
import {
  tlsKeys,
  tlsRenewKeys,
  tlsSetDescriptors,
  tlsSetSequence,
  type TlsDirection,
  type TlsKeys,
} from "../../ffi/libgnutls_keys.ts";
import { AddressFamily, SocketType } from "../../ffi/linux.ts";
import { MissingLibraryError } from "../errors.ts";
import { TLS_RECORDS_PER_KEY_MAX } from "../limits.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import type { Link } from "./transport.ts";

/** Most bytes of data in a record. */
export const RECORD_BYTES = 16_384;

/** What GnuTLS calls what can be wrong with a record. */
export const RecordResult = {
  TRUNCATED: -9,
  UNEXPECTED: -15,
  DECRYPTION_FAILED: -24,
  OVERFLOW: -26,
} as const;

/*
 * A record: u8 outer type, u16 version, u16 length of what follows; encrypted data, u8 inner type,
 * zeros as padding; tag.
 */
const HEADER_BYTES = 5;
const LENGTH_AT = 3;
const TYPE_BYTES = 1;
const AROUND_BYTES = HEADER_BYTES + TYPE_BYTES + AEAD_TAG_BYTES;
const VERSION = 0x0303;
const APPLICATION_DATA = 23;
/** Most that may follow a header. */
const CIPHERTEXT_BYTES_MAX = RECORD_BYTES + 256;
/** Records that are sent or received with one call: as many as stay in a core's cache. */
const RECORDS_AT_ONCE = 16;

const [NONCE_AT, TYPE_AT, IV_AT] = [0, 32, 64];

/** The library's key of one direction, and the number of the next record. */
class RecordKey implements Disposable {
  /** Of the byte that tells data from the rest. */
  readonly typeAddress: number;
  readonly aead: Aead;
  sequence = 0;
  readonly #session: number;
  readonly #direction: TlsDirection;
  readonly #arena = new Arena(IV_AT + AEAD_NONCE_BYTES);

  constructor(session: number, direction: TlsDirection, keys: TlsKeys) {
    this.#session = session;
    this.#direction = direction;
    this.aead = new Aead(direction === "write" ? "encrypt" : "decrypt");
    this.typeAddress = this.#arena.address + TYPE_AT;
    this.#arena.u8[TYPE_AT] = APPLICATION_DATA;
    this.#take(keys);
  }

  get type(): number {
    return this.#arena.u8[TYPE_AT];
  }

  /** Begins a record; its header is authenticated. */
  begin(header: number): void {
    const { view } = this.#arena;
    const { sequence } = this;
    view.setUint32(NONCE_AT + 4, view.getUint32(IV_AT + 4) ^ (sequence / 0x1_0000_0000));
    view.setUint32(NONCE_AT + 8, view.getUint32(IV_AT + 8) ^ sequence);
    this.aead.begin(this.#arena.address + NONCE_AT, header, HEADER_BYTES);
  }

  /** Tells the library where the connection stands, so that it can go on. */
  handBack(): void {
    tlsSetSequence(this.#session, this.#direction, this.sequence);
  }

  /** Goes on from where the library stands. */
  resume(): void {
    this.#take(tlsKeys(this.#session, this.#direction)!);
  }

  #take({ cipher, key, iv, sequence }: TlsKeys): void {
    this.aead.setKey(cipher, key);
    copyMemory(this.#arena.address + IV_AT, iv, AEAD_NONCE_BYTES);
    copyMemory(this.#arena.address + NONCE_AT, iv, AEAD_NONCE_BYTES);
    this.sequence = sequence;
  }

  [Symbol.dispose](): void {
    this.aead[Symbol.dispose]();
    this.#arena.u8.fill(0);
  }
}

/** The key of one direction; undefined where libcrypto is missing and GnuTLS has to do it all. */
function keyOf(session: number, direction: TlsDirection): RecordKey | undefined {
  const keys = tlsKeys(session, direction);
  if (keys === undefined) return undefined;
  try {
    return new RecordKey(session, direction, keys);
  } catch (error) {
    if (error instanceof MissingLibraryError) return undefined;
    throw error;
  }
}

/** Makes records. */
export class RecordWriter implements Disposable {
  readonly #session: number;
  readonly #key: RecordKey;
  readonly #recordsMax: number;
  readonly #out = new Arena(RECORDS_AT_ONCE * (RECORD_BYTES + AROUND_BYTES));
  #from = 0;
  #to = 0;

  private constructor(session: number, key: RecordKey, recordsMax: number) {
    this.#session = session;
    this.#key = key;
    this.#recordsMax = recordsMax;
  }

  /**
   * Takes over the sending direction of a session that has nothing half sent.
   *
   * @param recordsMax How many records to protect with one key.
   * @returns Undefined where the library must do it.
   */
  static open(session: number, recordsMax = TLS_RECORDS_PER_KEY_MAX): RecordWriter | undefined {
    const key = keyOf(session, "write");
    return key === undefined ? undefined : new RecordWriter(session, key, recordsMax);
  }

  /** Whether the key has protected as much as it may: {@linkcode renewKey} comes first. */
  get isWornOut(): boolean {
    return this.#key.sequence >= this.#recordsMax;
  }

  /** Has the library tell the peer of a new key, and takes it; not 0: the call is to be repeated, or failed. */
  renewKey(): number {
    this.#key.handBack();
    const result = tlsRenewKeys(this.#session);
    if (result === 0) this.#key.resume();
    return result;
  }

  /** Lets the library send what follows. */
  handBack(): void {
    this.#key.handBack();
  }

  /** Encrypts from the front of `list` as many records as there is room for; they are to be sent. */
  seal(list: IovecList): void {
    const room = this.#out.buffer.byteLength - RECORD_BYTES - AROUND_BYTES;
    this.#from = 0;
    this.#to = 0;
    while (list.bytes > 0 && this.#to <= room && !this.isWornOut) this.#sealRecord(list);
  }

  /** Address of what is still to be sent. */
  get address(): number {
    return this.#out.address + this.#from;
  }

  /** Its length. */
  get bytes(): number {
    return this.#to - this.#from;
  }

  /** Drops what was sent. */
  sent(bytes: number): void {
    this.#from += bytes;
  }

  #sealRecord(list: IovecList): void {
    const { view, address } = this.#out;
    const key = this.#key;
    const { aead } = key;
    const bytes = Math.min(list.bytes, RECORD_BYTES);
    const header = this.#to;
    view.setUint8(header, APPLICATION_DATA);
    view.setUint16(header + 1, VERSION);
    view.setUint16(header + LENGTH_AT, bytes + TYPE_BYTES + AEAD_TAG_BYTES);
    key.begin(address + header);
    let to = address + header + HEADER_BYTES;
    for (let entry = 0, left = bytes; left > 0; entry++) {
      const piece = Math.min(list.bytesAt(entry), left);
      aead.update(to, list.addressAt(entry), piece);
      to += piece;
      left -= piece;
    }
    aead.update(to, key.typeAddress, TYPE_BYTES);
    aead.seal(to + TYPE_BYTES);
    key.sequence++;
    list.consume(bytes);
    this.#to = header + bytes + AROUND_BYTES;
  }

  [Symbol.dispose](): void {
    this.#key[Symbol.dispose]();
  }
}

/** Opens records. Results are those of GnuTLS: {@linkcode TlsResult}, {@linkcode RecordResult}. */
export class RecordReader implements Disposable {
  readonly #session: number;
  readonly #fd: number;
  readonly #key: RecordKey;
  /** What has come and is not opened yet. */
  readonly #in = new Arena(RECORDS_AT_ONCE * (RECORD_BYTES + AROUND_BYTES));
  #from = 0;
  #to = 0;
  /** Data of an opened record for which there was no place. */
  readonly #rest = new Arena(RECORD_BYTES);
  #restFrom = 0;
  #restTo = 0;
  #ended = false;

  private constructor({ fd, state }: Link, key: RecordKey) {
    this.#session = state!;
    this.#fd = fd;
    this.#key = key;
  }

  /**
   * Takes over the receiving direction of a session that has nothing half received.
   *
   * @returns Undefined where the library must do it.
   */
  static open(link: Link): RecordReader | undefined {
    const key = keyOf(link.state!, "read");
    return key === undefined ? undefined : new RecordReader(link, key);
  }

  /** Decrypted bytes that nobody has received. */
  get pending(): number {
    return this.#restTo - this.#restFrom;
  }

  /** Whether bytes have come from the network that nobody has received. */
  get holdsBytes(): boolean {
    return this.pending > 0 || this.#to > this.#from;
  }

  /**
   * Receives the next piece into the front of `list`, or keeps it when that is empty.
   *
   * @returns Bytes received or kept, 0 when the peer has said that nothing follows, or a failure.
   */
  receive(list: IovecList): number {
    if (this.pending > 0) return this.#takeRest(list);
    if (this.#ended) return 0;
    const status = this.#awaitRecord();
    if (status < 0) return status;
    const bytes = this.#recordBytes - AROUND_BYTES;
    if (this.#in.u8[this.#from] !== APPLICATION_DATA) return RecordResult.UNEXPECTED;
    if (bytes < 0 || bytes > RECORD_BYTES) return this.#passOn();
    const taken = Math.min(bytes, list.bytes);
    if (!this.#open(list, taken, bytes - taken)) return RecordResult.DECRYPTION_FAILED;
    if (this.#key.type !== APPLICATION_DATA) return this.#passOn();
    this.#key.sequence++;
    this.#from += bytes + AROUND_BYTES;
    this.#keep(bytes - taken);
    list.consume(taken);
    return bytes === 0 ? TlsResult.AGAIN : bytes; // a record without data is no progress
  }

  #takeRest(list: IovecList): number {
    const bytes = this.pending;
    while (this.pending > 0 && list.bytes > 0) {
      const piece = Math.min(list.bytesAt(0), this.pending);
      copyMemory(list.addressAt(0), this.#rest.address + this.#restFrom, piece);
      list.consume(piece);
      this.#restFrom += piece;
    }
    return bytes;
  }

  #keep(bytes: number): void {
    this.#restFrom = 0;
    this.#restTo = bytes;
  }

  /** Waits until the next record is there as a whole; negative: it is not. */
  #awaitRecord(): number {
    const { address, buffer, u8 } = this.#in;
    for (;;) {
      const here = this.#to - this.#from;
      if (here >= HEADER_BYTES) {
        const bytes = this.#recordBytes;
        if (bytes > HEADER_BYTES + CIPHERTEXT_BYTES_MAX) return RecordResult.OVERFLOW;
        if (here >= bytes) return bytes;
      }
      if (here === 0 || this.#from + HEADER_BYTES + CIPHERTEXT_BYTES_MAX > buffer.byteLength) {
        u8.copyWithin(0, this.#from, this.#to);
        this.#from = 0;
        this.#to = here;
      }
      const got = recv(this.#fd, address + this.#to, buffer.byteLength - this.#to, 0);
      if (got === 0) return here === 0 ? TlsResult.PREMATURE_TERMINATION : RecordResult.TRUNCATED;
      if (got === -Errno.EAGAIN || got === -Errno.EINTR) return TlsResult.AGAIN;
      if (got < 0) return TlsResult.PULL_ERROR;
      this.#to += got;
    }
  }

  /** Bytes of the next record, whose header is there. */
  get #recordBytes(): number {
    return HEADER_BYTES + this.#in.view.getUint16(this.#from + LENGTH_AT);
  }

  /** Decrypts the next record: `taken` bytes into `list`, which stays as it is, and `kept` more. */
  #open(list: IovecList, taken: number, kept: number): boolean {
    const key = this.#key;
    const { aead } = key;
    const header = this.#in.address + this.#from;
    key.begin(header);
    let from = header + HEADER_BYTES;
    for (let entry = 0, left = taken; left > 0; entry++) {
      const piece = Math.min(list.bytesAt(entry), left);
      aead.update(list.addressAt(entry), from, piece);
      from += piece;
      left -= piece;
    }
    if (kept > 0) aead.update(this.#rest.address, from, kept);
    aead.update(key.typeAddress, from + kept, TYPE_BYTES);
    return aead.open(from + kept + TYPE_BYTES);
  }

  /** Lets the library have the next record, and keeps the data in it if there is any. */
  #passOn(): number {
    const bytes = this.#recordBytes;
    this.#key.handBack();
    using detour = new Detour(this.#in.address + this.#from, bytes);
    tlsSetDescriptors(this.#session, detour.fd, this.#fd);
    const got = tlsReceive(this.#session, this.#rest.address, RECORD_BYTES);
    tlsSetDescriptors(this.#session, this.#fd, this.#fd);
    this.#from += bytes;
    if (got >= 0 || got === TlsResult.AGAIN) this.#key.resume();
    if (got === 0) this.#ended = true;
    if (got > 0) this.#keep(got);
    return got;
  }

  [Symbol.dispose](): void {
    this.#key[Symbol.dispose]();
  }
}

/** A descriptor with one record to read, and nothing behind it. */
class Detour implements Disposable {
  readonly fd: number;
  readonly #other: number;

  constructor(address: number, bytes: number) {
    const fds = new Arena(8);
    const type = SocketType.STREAM | SocketType.CLOEXEC | SocketType.NONBLOCK;
    unwrap("Cannot make a socket pair", socketpair(AddressFamily.UNIX, type, 0, fds.address));
    [this.fd, this.#other] = fds.u32;
    writeFd(this.#other, address, bytes);
  }

  [Symbol.dispose](): void {
    close(this.fd);
    close(this.#other);
  }
}
