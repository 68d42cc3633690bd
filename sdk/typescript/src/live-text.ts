// Text that grows by deltas whose offsets count UTF-8 bytes. Pure.

/** Text so far and its length in UTF-8 bytes. */
export interface LiveText {
  readonly text: string;
  readonly bytes: number;
}

const encoder = new TextEncoder();

/** Text of nothing. */
export const EMPTY_LIVE_TEXT: LiveText = { text: "", bytes: 0 };

/** Length of a text in UTF-8 bytes. */
export function utf8Length(text: string): number {
  return encoder.encode(text).length;
}

/** A complete text as a live one. */
export function liveText(text: string): LiveText {
  return { text, bytes: utf8Length(text) };
}

/** UTF-16 index of the first character that ends behind `bytes` bytes of UTF-8. */
function indexOfByte(text: string, bytes: number): number {
  let count = 0;
  let index = 0;
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    const length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    if (count + length > bytes) return index;
    count += length;
    index += character.length;
  }
  return index;
}

/**
 * Merges a delta. What is already there stays; a piece that says otherwise replaces from its offset on;
 * a piece behind a gap is ignored, as the completed item brings the whole text.
 */
export function mergeDelta(current: LiveText, offset: number, text: string): LiveText {
  if (offset > current.bytes) return current;
  const added = utf8Length(text);
  if (offset === current.bytes) {
    return added === 0 ? current : { text: current.text + text, bytes: current.bytes + added };
  }
  const cut = indexOfByte(current.text, offset);
  if (current.text.startsWith(text, cut)) return current;
  return { text: current.text.slice(0, cut) + text, bytes: offset + added };
}
