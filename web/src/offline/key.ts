/** The key of the service, where it has one, as it was typed on this device. */

export const KEY_ITEM = "cassava-key";

export function storedKey(): string | null {
  return localStorage.getItem(KEY_ITEM);
}

/** The header that `fetch` sends along. */
export function keyHeaders(): Record<string, string> {
  const key = storedKey();
  return key === null ? {} : { "X-API-Key": key };
}
