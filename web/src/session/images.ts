// Images a person pastes or picks, as the API takes them.
import type { ImageAttachment } from "@greenroom/sdk";

export const IMAGE_TYPES: readonly string[] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
export const MAX_IMAGES = 8;
const MAX_IMAGE_BYTES = 5 * 1024 * 1024;

/** Address of an attachment for an <img>. */
export function imageUrl(image: ImageAttachment): string {
  return `data:${image.media_type};base64,${image.data_base64}`;
}

/** Why a file cannot be sent; null if it can. */
export function refusalOf(file: { type: string; size: number; name: string }): string | null {
  if (!IMAGE_TYPES.includes(file.type)) return `${file.name} is not a PNG, JPEG, GIF or WebP image.`;
  if (file.size > MAX_IMAGE_BYTES) return `${file.name} is larger than 5 MiB.`;
  return null;
}

/** Reads a file into an attachment. */
export async function attachmentOf(file: File): Promise<ImageAttachment> {
  const url = await new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => {
      resolve(typeof reader.result === "string" ? reader.result : "");
    };
    reader.onerror = () => {
      reject(reader.error ?? new Error("read the image"));
    };
    reader.readAsDataURL(file);
  });
  return { media_type: file.type, data_base64: url.slice(url.indexOf(",") + 1) };
}
