/* Writes to what of the kernel's image is mapped read-only: through another mapping of its page. */
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/vmalloc.h>

static void *writable(void *place)
{
	/* Not virt_to_page(): 64-bit Arm and RISC-V do not map the image where they map all RAM. */
	struct page *page = pfn_to_page(PHYS_PFN(__pa_symbol(place)));
	void *alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	return alias ? alias + offset_in_page(place) : NULL;
}

static int __maybe_unused put_pointer(void *place, void *value)
{
	void *alias = writable(place);

	if (!alias)
		return -ENOMEM;
	WRITE_ONCE(*(void **)alias, value);
	vunmap((void *)((unsigned long)alias & PAGE_MASK));
	return 0;
}

/* All of it has to lie in one page. */
static int __maybe_unused put_bytes(void *place, const void *bytes, size_t size)
{
	void *alias;

	if (offset_in_page(place) + size > PAGE_SIZE)
		return -EINVAL;
	alias = writable(place);
	if (!alias)
		return -ENOMEM;
	memcpy(alias, bytes, size);
	vunmap((void *)((unsigned long)alias & PAGE_MASK));
	return 0;
}
