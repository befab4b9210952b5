/**
 * OpenSSL's libcrypto: authenticated encryption piece by piece, so that scattered pages become one
 * record, and one record scattered pages, without a copy between.
 *
 * @module
 */
import { NativeType } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { NativeCodecError } from "./errors.ts";
import { openLibrary, type LibrarySource } from "./library.ts";

/** Where libcrypto is looked for. */
const LIBCRYPTO: LibrarySource = {
  name: "libcrypto",
  sonames: ["libcrypto.so.3"],
  override: "MULTIFD_LIBCRYPTO",
  debianPackage: "libssl3",
};

const CONTEXT = NativeType.ptr; // EVP_CIPHER_CTX *
const CIPHER = NativeType.ptr; // EVP_CIPHER *
const ADDRESS = NativeType.ptr;
const INT = NativeType.i32;
const SYMBOLS = {
  EVP_aes_128_gcm: { args: [], returns: CIPHER },
  EVP_aes_256_gcm: { args: [], returns: CIPHER },
  EVP_chacha20_poly1305: { args: [], returns: CIPHER },
  EVP_CIPHER_CTX_new: { args: [], returns: CONTEXT },
  EVP_CIPHER_CTX_free: { args: [CONTEXT], returns: NativeType.void },
  EVP_CipherInit_ex: { args: [CONTEXT, CIPHER, ADDRESS, ADDRESS, ADDRESS, INT], returns: INT }, // type, engine, key, iv, enc
  EVP_CipherUpdate: { args: [CONTEXT, ADDRESS, ADDRESS, ADDRESS, INT], returns: INT }, // out, int *outl, in, inl
  EVP_CipherFinal_ex: { args: [CONTEXT, ADDRESS, ADDRESS], returns: INT }, // out, int *outl
  EVP_CIPHER_CTX_ctrl: { args: [CONTEXT, INT, INT, ADDRESS], returns: INT }, // type, arg, ptr
} as const;

type Libcrypto = ReturnType<typeof open>;
type Address = Parameters<Libcrypto["EVP_CIPHER_CTX_free"]>[0];

const open = () => openLibrary(LIBCRYPTO, SYMBOLS);
let opened: Libcrypto | undefined;
const libcrypto = (): Libcrypto => (opened ??= open());

const NONE = 0 as unknown as Address;
const [DECRYPT, ENCRYPT, UNCHANGED] = [0, 1, -1];
const [CTRL_GET_TAG, CTRL_SET_TAG] = [0x10, 0x11];

/** Ciphers that TLS 1.3 protects records with. */
export type AeadName = "AES-128-GCM" | "AES-256-GCM" | "CHACHA20-POLY1305";

/** Bytes of the tag behind what is encrypted, with each of them. */
export const AEAD_TAG_BYTES = 16;
/** Bytes of a nonce, with each of them. */
export const AEAD_NONCE_BYTES = 12;

function cipherOf(name: AeadName): Address | null {
  const library = libcrypto();
  if (name === "AES-128-GCM") return library.EVP_aes_128_gcm();
  if (name === "AES-256-GCM") return library.EVP_aes_256_gcm();
  return library.EVP_chacha20_poly1305();
}

/** One key in one direction. The memory behind all addresses must outlive the call. */
export class Aead implements Disposable {
  readonly #library = libcrypto();
  readonly #context: Address;
  readonly #direction: number;
  /** Where libcrypto writes lengths, and what it has to say at the end: nothing. */
  readonly #out = new Arena(64);
  readonly #length = this.#out.address as Address;
  readonly #nothing = (this.#out.address + 16) as Address;
  #disposed = false;

  /** @throws {MissingLibraryError} without libcrypto. */
  constructor(direction: "encrypt" | "decrypt") {
    this.#direction = direction === "encrypt" ? ENCRYPT : DECRYPT;
    this.#context = this.#library.EVP_CIPHER_CTX_new() as Address;
    if (Number(this.#context) === 0) {
      throw new NativeCodecError("EVP_CIPHER_CTX_new() is out of memory", 0);
    }
  }

  /** Takes the key at `key`, which may be wiped afterwards. */
  setKey(name: AeadName, key: number): void {
    const cipher = cipherOf(name);
    this.#check(
      this.#library.EVP_CipherInit_ex(
        this.#context,
        cipher,
        NONE,
        key as Address,
        NONE,
        this.#direction,
      ),
    );
  }

  /** Begins a message whose `bytes` bytes at `address` are authenticated, and not encrypted. */
  begin(nonce: number, address: number, bytes: number): void {
    const [context, library] = [this.#context, this.#library];
    this.#check(library.EVP_CipherInit_ex(context, NONE, NONE, NONE, nonce as Address, UNCHANGED));
    this.#check(library.EVP_CipherUpdate(context, NONE, this.#length, address as Address, bytes));
  }

  /** Goes on with `bytes` bytes from `from` to `to`. Decrypted ones prove nothing before the end. */
  update(to: number, from: number, bytes: number): void {
    this.#check(
      this.#library.EVP_CipherUpdate(
        this.#context,
        to as Address,
        this.#length,
        from as Address,
        bytes,
      ),
    );
  }

  /** Ends an encrypted message; its tag is written to `tag`. */
  seal(tag: number): void {
    const [context, library] = [this.#context, this.#library];
    this.#check(library.EVP_CipherFinal_ex(context, this.#nothing, this.#length));
    this.#check(library.EVP_CIPHER_CTX_ctrl(context, CTRL_GET_TAG, AEAD_TAG_BYTES, tag as Address));
  }

  /** Ends a decrypted message; whether all of it is what the peer has sealed with `tag`. */
  open(tag: number): boolean {
    const [context, library] = [this.#context, this.#library];
    this.#check(library.EVP_CIPHER_CTX_ctrl(context, CTRL_SET_TAG, AEAD_TAG_BYTES, tag as Address));
    return library.EVP_CipherFinal_ex(context, this.#nothing, this.#length) === 1;
  }

  #check(status: number): void {
    if (status !== 1) throw new NativeCodecError("libcrypto could not encrypt or decrypt", status);
  }

  [Symbol.dispose](): void {
    if (!this.#disposed) this.#library.EVP_CIPHER_CTX_free(this.#context);
    this.#disposed = true;
  }
}
