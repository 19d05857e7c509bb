/* Writes one pointer of the kernel's image that is mapped read-only: through another mapping of its page. */
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/vmalloc.h>

static int put_pointer(void *place, void *value)
{
	/* Not virt_to_page(): 64-bit Arm and RISC-V do not map the image where they map all RAM. */
	struct page *page = pfn_to_page(PHYS_PFN(__pa_symbol(place)));
	void *alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	if (!alias)
		return -ENOMEM;
	WRITE_ONCE(*(void **)(alias + offset_in_page(place)), value);
	vunmap(alias);
	return 0;
}
