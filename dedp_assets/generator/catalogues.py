"""The devices that exist: models and operating systems by device type.

Every value fits its database column: type ``varchar(15)``, full name ``varchar(50)``, version
``varchar(40)``.
"""

from typing import Final

_ANDROID: Final = (
    "Android Pie",
    "Android 10",
    "Android 11",
    "Android 12",
    "Android 12L",
    "Android 13",
    "Android 14",
    "Android 15",
)

#: Device type -> (full names, versions).
CATALOGUES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "galaxy": (
        (
            "Galaxy Nexus",
            "Galaxy Mini",
            "Galaxy Y",
            "Galaxy Ace",
            "Galaxy Ace II",
            "Galaxy Gio",
            "Galaxy W",
            "Galaxy S",
            "Galaxy S Plus",
            "Galaxy S 4g",
            "Galaxy S II",
            "Galaxy S Blaze 4g",
            "Galaxy S 3 mini",
            "Galaxy Camera",
            "Galaxy Q",
        ),
        _ANDROID,
    ),
    "htc": (("Evo 3d", "Sensation", "Sensation Xe", "Sensation 4g", "Amaze 4g"), _ANDROID),
    "iphone": (
        (
            "APPLE iPhone 8 Plus (Gold, 64 GB)",
            "APPLE iPhone 8 Plus (Space Grey, 256 GB)",
            "APPLE iPhone 8 Plus (Silver, 256 GB)",
            "APPLE iPhone 8 (Silver, 256 GB)",
            "APPLE iPhone SE (Black, 64 GB)",
            "APPLE iPhone 11 (White, 64 GB)",
            "APPLE iPhone 11 Pro Max (Midnight Green, 64 GB)",
            "APPLE iPhone 12 Pro Max (Graphite, 128 GB)",
            "APPLE iPhone 12 (Black, 128 GB)",
        ),
        ("iOS 13", "iOS 14", "iOS 15", "iOS 16", "iOS 17"),
    ),
    "lenovo": (
        (
            'ThinkPad X1 Carbon Gen 10 (14" Intel) Laptop',
            'ThinkPad X1 Carbon Gen 11 (14" Intel) Laptop',
            'ThinkPad P16s Gen 2 (16" AMD) Mobile Workstation',
            'ThinkBook 13s Gen 4 (13" AMD) Laptop',
            'ThinkBook 16 Gen 6 (16" Intel) Laptop',
            'Legion Pro 5i Gen 8 (16" Intel) Gaming Laptop',
            'Legion Slim 5 Gen 8 (16" AMD) Gaming Laptop',
            'Yoga 7 (16" AMD) 2-in-1 Laptop',
            'Yoga 7i (14" Intel) 2 in 1 Laptop',
            'Lenovo Slim Pro 7 (14" AMD) Laptop',
        ),
        ("Windows 10", "Windows 11", "Ubuntu 20", "Ubuntu 22", "Ubuntu 23"),
    ),
    "lg": (("Nexus 4", "Intuition", "G2x", "Spectrum"), _ANDROID),
    "mac": (
        (
            "MacBook Air (M1, 2020)",
            "MacBook Pro (13-inch, M1, 2020)",
            "MacBook Pro (14-inch, 2021)",
            "MacBook Pro (16-inch, 2021)",
            "MacBook Pro (13-inch, M2, 2022)",
            "MacBook Air (13-inch, M2, 2022)",
            "MacBook Pro (14-inch, M2, 2023)",
            "MacBook Pro (16-inch, M2, 2023)",
            "MacBook Air (15-inch, M2, 2023)",
            "MacBook Pro (14-inch, M3, 2023)",
            "MacBook Pro (16-inch, M3, 2023)",
        ),
        ("macOS Sonoma", "macOS Ventura", "macOS Monterey", "macOS Big Sur", "macOS Catalina"),
    ),
}

#: Every (type, full name, version) of the catalogues, in a fixed order.
COMBINATIONS: Final[tuple[tuple[str, str, str], ...]] = tuple(
    (device_type, full_name, version)
    for device_type, (full_names, versions) in CATALOGUES.items()
    for full_name in full_names
    for version in versions
)
