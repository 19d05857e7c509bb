#include "../xvisor.h"
