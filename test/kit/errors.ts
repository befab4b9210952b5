/** Catching what a test expects to be thrown, so that its code and fields can be looked at. */
import { MultifdError } from "../../mod.ts";

/** The error `action` throws. */
export function thrownBy(action: () => unknown): MultifdError {
  try {
    action();
  } catch (error) {
    if (error instanceof MultifdError) return error;
    throw error;
  }
  throw new Error("Nothing was thrown, a MultifdError must be");
}

/** The error `promise` rejects with. */
export async function rejectionOf(promise: Promise<unknown>): Promise<MultifdError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof MultifdError) return error;
    throw error;
  }
  throw new Error("Nothing was thrown, a MultifdError must be");
}
