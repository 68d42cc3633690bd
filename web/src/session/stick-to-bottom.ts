// Keeps a growing page at its end as long as the reader is there.
import { useEffect, useState } from "react";

const NEAR_PX = 120;

function distanceToEnd(): number {
  const page = document.documentElement;
  return page.scrollHeight - page.scrollTop - window.innerHeight;
}

export function jumpToEnd(): void {
  window.scrollTo({ top: document.documentElement.scrollHeight });
}

/** Whether the reader is at the end; follows growth of `content` while they are. */
export function useStickToBottom(content: React.RefObject<HTMLElement | null>): boolean {
  const [isAtEnd, setAtEnd] = useState(true);
  useEffect(() => {
    const element = content.current;
    if (element === null) return;
    let isFollowing = true;
    let lastTop = window.scrollY;
    const onScroll = () => {
      // Growth moves the end away without the reader's doing; only scrolling up lets go.
      if (distanceToEnd() <= NEAR_PX) isFollowing = true;
      else if (window.scrollY < lastTop - 1) isFollowing = false;
      lastTop = window.scrollY;
      setAtEnd(isFollowing);
    };
    const observer = new ResizeObserver(() => {
      if (isFollowing) jumpToEnd();
    });
    observer.observe(element);
    window.addEventListener("scroll", onScroll, { passive: true });
    return () => {
      observer.disconnect();
      window.removeEventListener("scroll", onScroll);
    };
  }, [content]);
  return isAtEnd;
}
