/* Lets the keyboard reach what Unfold's markup offers to the mouse only: elements with a click and without a role. */

const NATIVE = "a[href], button, input, select, textarea, label";
const NAMES = { en: { menu: "Menu", theme: "Theme" }, ko: { menu: "메뉴", theme: "밝기" } };

function enable(element, names) {
    const click = element.getAttribute("x-on:click");
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    // These show an icon alone.
    if (/sidebar/i.test(click)) {
        element.setAttribute("aria-label", names.menu);
    } else if (/openTheme/.test(click)) {
        element.setAttribute("aria-label", names.theme);
    }
    element.addEventListener("keydown", (event) => {
        if (event.target === element && (event.key === "Enter" || event.key === " ")) {
            event.preventDefault();
            element.click();
        }
    });
}

document.addEventListener("DOMContentLoaded", () => {
    const names = NAMES[document.documentElement.lang] ?? NAMES.en;
    for (const element of document.querySelectorAll("[x-on\\:click]")) {
        // The overlay beside open filters has no content. Escape presses it.
        if (!element.matches(NATIVE) && element.childElementCount + element.textContent.trim().length) {
            enable(element, names);
        }
    }
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
            document.getElementById("changelist-filter-close")?.click();
        }
    });
});
