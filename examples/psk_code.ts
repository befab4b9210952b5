/**
 * A shared key made of a secret that people can say. Whoever hears a handshake can try secrets at
 * home, so each try is made slow, and a secret must not be one that others would think of.
 *
 * @module
 */
/** Loaded with the first use: most programs that know codes are given none. */
const ciphers = () => process.getBuiltinModule("node:crypto");

/** Fewest letters and digits of a code. */
const LETTERS_MIN = 12;

const KEY_BYTES = 32;
/** 64 MiB and a quarter of a second for each try. */
const HARD = { N: 65_536, r: 8, p: 1, maxmem: 128 * 1_048_576 };
/** Equal everywhere: the code is all that both sides know. */
const SALT = "multifd three-words-here";

/** Sixteen consonants and four vowels: five letters in turn are 16 bits that can be spoken. */
const [CONSONANTS, VOWELS] = ["bdfghjklmnprstvz", "aiou"];
const WORDS = 4;

/**
 * Content of a `keys.psk` for a code. Capitals, and how words are parted, make no difference.
 *
 * @throws {RangeError} for one that is too short; the message has nothing of it.
 */
export function keysOfCode(code: string, username = "qemu"): string {
  const words = code
    .normalize("NFKC")
    .toLowerCase()
    .split(/[\s_-]+/)
    .filter((word) => word !== "");
  const letters = words.join("").length;
  if (letters < LETTERS_MIN) {
    throw new RangeError(`the code has ${letters} letters and digits, must have ${LETTERS_MIN}`);
  }
  const key = ciphers().scryptSync(words.join("-"), SALT, KEY_BYTES, HARD);
  return `${username}:${key.toString("hex")}\n`;
}

/** Content of a `keys.psk` with a random key. */
export function randomKeys(username: string): string {
  return `${username}:${ciphers().randomBytes(KEY_BYTES).toString("hex")}\n`;
}

/** A code of 64 random bits. */
export function randomCode(): string {
  return Array.from(crypto.getRandomValues(new Uint16Array(WORDS)), spoken).join("-");
}

function spoken(bits: number): string {
  const letter = (shift: number, letters: string): string =>
    letters[(bits >>> shift) % letters.length]!;
  return [
    letter(12, CONSONANTS),
    letter(10, VOWELS),
    letter(6, CONSONANTS),
    letter(4, VOWELS),
    letter(0, CONSONANTS),
  ].join("");
}
