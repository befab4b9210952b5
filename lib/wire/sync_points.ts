/**
 * Where a main stream has its sync points, told from the stream itself (main channel description,
 * section 6.4): with a marker in the setup section they are the markers, without one they are the
 * ends of RAM sections. Both kinds of source synchronise their channels in the setup section, so its
 * end always tells.
 *
 * @module
 */

/** When channels synchronise: after each round, or after each section as machine types up to 8.0 do. */
export type SyncMode = "round" | "section";

/** See the module comment. Told of markers and ends of sections in stream order. */
export class SyncPoints {
  #marked = false;
  #mode: SyncMode | undefined;

  /** The mode of the stream; undefined before its setup section has ended. */
  get mode(): SyncMode | undefined {
    return this.#mode;
  }

  /** A marker has come, which is a sync point in either mode. */
  marker(): void {
    this.#marked = true;
  }

  /** A section of RAM has come to its end; whether that is a sync point. */
  sectionEnd(): boolean {
    this.#mode ??= this.#marked ? "round" : "section";
    return this.#mode === "section";
  }
}
