// A box that scrolls can be reached by the keyboard, and only as long as it scrolls.
document.addEventListener("DOMContentLoaded", () => {
  const watch = new ResizeObserver(entries => {
    for (const { target } of entries) {
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  for (const box of document.querySelectorAll(".bd-article p:has(> img), .bd-article div.math")) watch.observe(box);
});

// The arrows that unfold a chapter in the sidebar have a name for those who do not see them.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".bd-links summary")) {
    arrow.setAttribute("aria-label", `Pages of ${arrow.closest("li").querySelector("a").textContent.trim()}`);
  }
});
